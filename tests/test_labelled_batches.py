"""Batches of data and labels, DataLoaders, and models that are conditional on labels."""

from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    TensorDataset,
    WeightedRandomSampler,
)

from pyro_dpvae._randomness import noise_seed
from pyro_dpvae.data import Batches, batches_of
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.training import NonFiniteError, TrainConfig, check_batch, evaluate_elbo, fit

SIZE, LATENT, CLASSES = 30, 2, 3


class Conditional(nn.Module):
    """p(z) p(x | z, y) and q(z | x, y), normals whose means are linear."""

    scale = 0.7  # of q

    def __init__(self) -> None:
        super().__init__()
        self.decode = nn.Linear(LATENT + CLASSES, 4)
        self.encode = nn.Linear(4 + CLASSES, LATENT)

    def model(self, x: Tensor, y: Tensor) -> None:
        pyro.module("decode", self.decode)
        with pyro.plate("data", len(x)):
            z = pyro.sample(
                "z", dist.Normal(torch.zeros(LATENT), 1.0).expand([len(x), LATENT]).to_event(1)
            )
            mean = self.decode(torch.cat([z, nn.functional.one_hot(y, CLASSES).float()], -1))
            pyro.sample("x", dist.Normal(mean, 0.5).to_event(1), obs=x)

    def guide(self, x: Tensor, y: Tensor) -> None:
        pyro.module("encode", self.encode)
        mean = self.encode(torch.cat([x, nn.functional.one_hot(y, CLASSES).float()], -1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(mean, self.scale).to_event(1))


class Called(nn.Module):
    """A method of a module as a module."""

    def __init__(self, parts: Conditional, name: str) -> None:
        super().__init__()
        self.parts, self.name = parts, name

    def forward(self, *args: Tensor) -> None:
        getattr(self.parts, self.name)(*args)


def programs() -> tuple[Called, Called]:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    parts = Conditional()
    return Called(parts, "model"), Called(parts, "guide")


def labelled() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(SIZE) % CLASSES
    return torch.randn(SIZE, 4, generator=generator) + 3 * y[:, None], y


class Pairs(Dataset[tuple[Tensor, int]]):
    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.x[index], int(self.y[index])


def batches(**options: Any) -> Batches:
    return Batches(labelled(), batch_size=8, preprocessing="none", **options)


@pytest.mark.parametrize("drop_last", [False, True])
def test_labels_stay_with_their_data(drop_last: bool) -> None:
    x, y = labelled()
    row_of = {tuple(row): label for row, label in zip(x.tolist(), y.tolist(), strict=True)}
    passes = []
    for made in (
        batches(drop_last=drop_last),
        Batches(Pairs(x, y), batch_size=8, preprocessing="none", workers=0, drop_last=drop_last),
    ):
        found = list(made.epoch(3))
        assert [len(one) for one, _ in found] == [8, 8, 8, 6][: 3 if drop_last else 4]
        assert len(made) == len(found)
        assert made.smallest == len(found[-1][0])
        for data, labels in found:
            assert labels.dtype == torch.int64
            assert [row_of[tuple(row)] for row in data.tolist()] == labels.tolist()
        passes.append(found)
    for one, other in zip(*passes, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_ranks_share_labels_as_they_share_data() -> None:
    whole = list(batches().epoch(1))
    parts = [list(batches(rank=rank, ranks=2).epoch(1)) for rank in (0, 1)]
    for x, y in [
        [torch.cat(column) for column in zip(*ranks, strict=True)]
        for ranks in zip(*parts, strict=True)
    ]:
        expected = next(one for one in whole if torch.equal(one[0], x))
        assert torch.equal(expected[1], y)


def trained(train: Any, steps: int = 10, **options: Any) -> tuple[list[Tensor], Any]:
    model, guide = programs()
    config = TrainConfig(steps=steps, evaluate_every=5, log_every=1, learning_rate=1e-2)
    history = fit(
        model,
        guide,
        objective=RegularizedELBO(),
        train=train,
        test=batches(shuffle=False),
        config=config,
        progress=False,
        **options,
    )
    return [p.detach().clone() for p in model.parameters()], history


def test_a_conditional_model_trains_as_by_svi() -> None:
    weights, history = trained(batches())
    model, guide = programs()
    optim = pyro.optim.Adam({"lr": 1e-2})
    svi = SVI(model, guide, optim, RegularizedELBO())
    pyro.set_rng_seed(noise_seed(0))
    steps = [pair for epoch in range(3) for pair in batches().epoch(epoch)][:10]
    losses = [svi.step(x, y) / len(x) for x, y in steps]
    found = [record["loss"] for record in history.records if "loss" in record]
    assert found == pytest.approx(losses, rel=1e-4)
    for one, other in zip(weights, model.parameters(), strict=True):
        torch.testing.assert_close(one, other.detach(), atol=1e-4, rtol=1e-4)


def test_a_resumed_conditional_run_is_the_one_that_nothing_interrupted(tmp_path: Path) -> None:
    whole, _ = trained(batches())
    run = RunFolder.create(tmp_path / "run", {})
    trained(batches(), 5, run=run)
    resumed, _ = trained(batches(), 10, run=RunFolder.open(run.path), resume=True)
    for one, other in zip(resumed, whole, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dataset", [TensorDataset, Pairs])
def test_a_loader_trains_as_batches_of_its_data(dataset: type[Dataset[Any]]) -> None:
    loader = DataLoader(dataset(*labelled()), batch_size=8, shuffle=True)
    (from_loader, _), (expected, _) = trained(loader), trained(batches())
    for one, other in zip(from_loader, expected, strict=True):
        assert torch.equal(one, other)


def test_held_out_bounds_of_a_loader_weigh_every_datum_alike() -> None:
    model, guide = programs()
    guide.parts.scale = 1e-5  # so that bounds do not depend on draws
    loader = DataLoader(TensorDataset(*labelled()), batch_size=7)
    one = evaluate_elbo(model, guide, batches_of(loader))
    rows = [(x[None], y[None]) for x, y in zip(*labelled(), strict=True)]
    each = [evaluate_elbo(model, guide, [row]) for row in rows]
    mean = sum(found["elbo"] for found in each) / SIZE
    assert one["elbo"] == pytest.approx(mean, rel=1e-4)
    assert len(list(batches_of(loader).epoch(0))) == 5


def test_images_of_a_loader_are_what_its_dataset_makes_of_them() -> None:
    normalised = torch.randn(6, 1, 4, 5)
    (found,) = batches_of(DataLoader(TensorDataset(normalised), batch_size=6)).epoch(0)
    assert torch.equal(found, normalised)
    levels = torch.randint(256, (6, 1, 4, 5), dtype=torch.uint8)
    (found,) = batches_of(DataLoader(TensorDataset(levels), batch_size=6)).epoch(0)
    torch.testing.assert_close(found, levels / 255)
    # Without a dimension of channels, as torchvision has the digits of MNIST.
    (found,) = batches_of(DataLoader(TensorDataset(levels[:, 0]), batch_size=6)).epoch(0)
    torch.testing.assert_close(found, levels / 255)


class Endless(IterableDataset[Tensor]):
    def __iter__(self) -> Any:
        return iter(torch.randn(5, 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda data: DataLoader(data, sampler=WeightedRandomSampler(torch.ones(5), 5)),
            "in order or shuffle all of them, .*got WeightedRandomSampler",
        ),
        (
            lambda data: DataLoader(data, batch_size=None),
            "got SequentialSampler and batch_size No",
        ),
        (
            lambda data: DataLoader(data, collate_fn=lambda items: torch.stack(items)),
            "default collate_fn, got its own; let its dataset return",
        ),
        (lambda data: DataLoader(Endless()), "choose or repeat items in its dataset"),
    ],
)
def test_loaders_whose_order_no_resumed_run_knows_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batches_of(make(TensorDataset(torch.randn(5, 3))))


def test_labels_that_do_not_fit_are_refused() -> None:
    x, y = labelled()
    with pytest.raises(ValueError, match=r"entry per item, got \[29\] for 30 items"):
        Batches((x, y[1:]), batch_size=8, preprocessing="none")
    weights = y.float()
    weights[3] = torch.nan
    model, guide = programs()
    pairs = Batches((x, weights), batch_size=30, preprocessing="none", shuffle=False)
    (batch,) = pairs.epoch(0)
    with pytest.raises(ValueError, match="1 NaN or infinite values of 150"):
        check_batch(model, guide, RegularizedELBO(), batch)


def test_the_batch_at_which_training_stops_is_kept_with_its_labels(tmp_path: Path) -> None:
    x, y = labelled()
    x[17] = 1e30
    data = Batches((x, y), batch_size=6, preprocessing="none", shuffle=False)
    model, guide = programs()
    run = RunFolder.create(tmp_path / "run", {})
    with pytest.raises(NonFiniteError, match="diverged at step 3"):
        fit(
            model,
            guide,
            objective=RegularizedELBO(),
            train=data,
            test=batches(),
            config=TrainConfig(steps=5),
            run=run,
            progress=False,
        )
    kept = load_file(run.path / "nonfinite" / "step-3.safetensors")
    assert torch.equal(kept["batch"], x[12:18])
    assert torch.equal(kept["batch.1"], y[12:18])
