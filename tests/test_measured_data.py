"""What measurements see: data from all over a file, whole batches, networks in evaluation mode."""

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import datasets

from pyro_dpvae import VAE, AggregatePosterior, AmortizedGaussian, Decoder, GaussianEncoder
from pyro_dpvae._subsets import evenly_spaced
from pyro_dpvae.cli import main
from pyro_dpvae.data import DataSet, load
from pyro_dpvae.evaluation import EvaluationConfig, Subject
from pyro_dpvae.evaluation.labelled import labelled, own_clusters
from pyro_dpvae.export import to_arviz
from pyro_dpvae.features import AbstractFeatures, extract
from pyro_dpvae.importance import log_weights
from pyro_dpvae.likelihoods import GaussianLikelihood
from pyro_dpvae.metrics import (
    FeatureStatistics,
    assigned_clusters,
    kernel_distance,
    leakage_curve,
    log_likelihoods,
    low_posterior_samples,
    negative_log_likelihood,
    posterior_grid,
    posterior_kl,
    rate_split,
    symmetric_kl,
)
from pyro_dpvae.mixture import posterior_means
from pyro_dpvae.nn import Batched
from pyro_dpvae.nn.modes import in_evaluation
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.plots import cluster_codes, layer_codes
from pyro_dpvae.priors import ProductPrior, StandardNormal, VampPrior
from pyro_dpvae.recipes import open_run
from pyro_dpvae.training import evaluate_elbo

CLASSES, EACH = 4, 60


def test_indices_are_evenly_spaced() -> None:
    assert evenly_spaced(5, 5).tolist() == [0, 1, 2, 3, 4]
    assert evenly_spaced(9, 3).tolist() == [0, 1, 2]
    for count, size in [(7, 1000), (999, 1000), (10_000, 60_000)]:
        chosen = evenly_spaced(count, size)
        assert len(chosen.unique()) == count
        gaps = chosen.diff()
        assert gaps.max() - gaps.min() <= 1
        assert chosen[0] < size / count
        assert chosen[-1] >= size - size / count - 1


# A file in the order of its classes.


def sorted_data() -> DataSet:
    labels = torch.arange(CLASSES).repeat_interleave(EACH)
    noise = torch.randint(
        0, 40, (len(labels), 1, 8, 8), generator=torch.Generator().manual_seed(0)
    )
    images = (noise + 60 * labels[:, None, None, None]).to(torch.uint8)
    return DataSet("sorted", images, images[::2].contiguous(), labels, labels[::2])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of normal posteriors and one of a flow, on images in the order of their classes."""
    folder, data = tmp_path_factory.mktemp("runs"), sorted_data()
    assert isinstance(data.train, Tensor)
    assert isinstance(data.test, Tensor)
    np.savez(
        folder / "sorted.npz",
        train=data.train.numpy(),
        train_labels=data.train_labels,
        test=data.test.numpy(),
        test_labels=data.test_labels,
    )
    found = {}
    for guide in ("amortized", "flow"):
        found[guide] = folder / guide
        words = f"train --data {folder / 'sorted.npz'} --steps 2 --backend eager --latent-dim 2 "
        words += f"--network mlp --prior standard --guide {guide} --out {found[guide]}"
        assert main(words.split()) == 0
    return found


def subject_of(run: Path, data: DataSet | None = None, **numbers: Any) -> Subject:
    saved = open_run(run)
    config = EvaluationConfig(**numbers)
    return Subject(saved, saved.load_data() if data is None else data, config, progress=False)


@pytest.mark.parametrize("guide", ["amortized", "flow"])
def test_probes_and_features_see_all_classes_of_a_sorted_file(
    guide: str, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyro_dpvae.evaluation.labelled._PROBE_DATA", 40)
    monkeypatch.setattr("pyro_dpvae.recipes.run._FLOWS", 20)
    subject = subject_of(runs[guide], images=40)
    train, labels, _, _ = labelled(subject)
    assert torch.equal(labels.bincount(), torch.full((CLASSES,), 10))
    every = subject.saved.batches(subject.data.train, batch_size=CLASSES * EACH)
    x = next(every.epoch(0))[evenly_spaced(40, CLASSES * EACH)]
    if guide == "amortized":
        torch.testing.assert_close(train, posterior_means(subject.guide.posterior, x))
        assert len(subject.aggregate.loc) == CLASSES * EACH
    else:
        assert len(subject.aggregate.loc) == 20
        means = subject.aggregate.loc.reshape(CLASSES, 5, 2).mean(1)
        seen = posterior_means(subject.guide.posterior, x, num_samples=500).reshape(CLASSES, 10, 2)
        torch.testing.assert_close(means, seen.mean(1), rtol=0, atol=0.2)
    levels = subject.reference_images.float().mean((1, 2, 3)).div(60).floor()
    assert torch.equal(levels.long().bincount(), torch.full((CLASSES,), 10))


def test_the_kernel_distance_of_sorted_features_is_that_of_shuffled_ones() -> None:
    def draws(seed: int, count: int = 600) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        centres = 5 * (torch.arange(count) // (count // 3))[:, None].float()
        return centres + torch.randn(count, 4, generator=generator)

    found = kernel_distance(draws(0)[torch.randperm(600)], draws(1))
    assert abs(found.value) < 4 * found.standard_error


# Splits without a class in common.


def without_common_classes() -> DataSet:
    data = sorted_data()
    assert data.test_labels is not None
    return DataSet("halves", data.train, data.test, data.train_labels, data.test_labels + CLASSES)


def test_a_probe_of_other_classes_stays_within_the_held_out_split(runs: dict[str, Path]) -> None:
    subject = subject_of(runs["amortized"], without_common_classes())
    fitted, fitted_labels, tested, tested_labels = labelled(subject)
    counts = torch.full((CLASSES,), EACH // 4)
    for means, labels in ((fitted, fitted_labels), (tested, tested_labels)):
        assert torch.equal(labels.bincount()[CLASSES:], counts)
        assert len(means) == len(labels)
    both = torch.cat([fitted, tested])
    assert torch.equal(both.sort(0).values, subject.test_means.sort(0).values)


def test_clusters_that_take_labels_from_other_classes_are_refused(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = subject_of(runs["amortized"], without_common_classes())
    monkeypatch.setattr("pyro_dpvae.evaluation.labelled.ClusteringLadderGuide", nn.Module)
    subject.guide.cluster_probabilities = lambda x: [torch.ones(len(x), 2)]
    with pytest.raises(ValueError, match="'halves' have no class in common; measure 'clusters'"):
        own_clusters(subject)


def test_the_characters_of_omniglot_have_a_number_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part, alphabet in (("images_background", "Greek"), ("images_evaluation", "Tifinagh")):
        for character in range(3):
            name = f"omniglot-py/{part}/{alphabet}/character{character + 1:02}"
            (tmp_path / name).mkdir(parents=True)
            for drawing in range(2):
                image = Image.fromarray(np.full((105, 105), True))
                image.save(tmp_path / name / f"{character:04}_{drawing:02}.png")
    monkeypatch.setattr(datasets.Omniglot, "_check_integrity", lambda self: True)
    data = load("omniglot", root=tmp_path)
    assert data.train_labels is not None
    assert data.test_labels is not None
    assert data.train_labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.test_labels.tolist() == [3, 3, 4, 4, 5, 5]


# A tensor is a batch.


class Linear(nn.Module):
    """A network with batch norm and dropout, whose results depend on its mode."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        layers = nn.Linear(inputs, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, outputs)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y


def network(inputs: int, outputs: int) -> Batched:
    return Batched(Linear(inputs, outputs), in_shape=(inputs,), out_shape=(outputs,))


@pytest.fixture
def parts() -> tuple[VAE, AmortizedGaussian, Tensor]:
    """A model and guide that were trained for three steps, in training mode, and data."""
    torch.manual_seed(0)
    x = torch.randn(60, 2)
    encoder = GaussianEncoder(network(2, 4), 2)
    prior = VampPrior(encoder, x[:5], bounds=None)
    model = VAE(prior, Decoder(network(2, 2), GaussianLikelihood((2,), variance=0.5)))
    guide = AmortizedGaussian(encoder)
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), RegularizedELBO())
    for _ in range(3):
        svi.step(x)
    return model, guide, x


def test_one_tensor_is_one_batch(parts: tuple[VAE, AmortizedGaussian, Tensor]) -> None:
    model, guide, x = parts
    found = []
    for batches in ([x], x):
        torch.manual_seed(1)
        found.append(log_likelihoods(model, guide, batches, num_samples=20, progress=False))
    assert torch.equal(found[0].log_likelihood, found[1].log_likelihood)
    assert negative_log_likelihood(found[1]).settings["data"] == len(x)
    assert len(AggregatePosterior.of(guide.posterior, x).loc) == len(x)
    assert torch.equal(posterior_means(guide.posterior, x), posterior_means(guide.posterior, [x]))
    assert evaluate_elbo(model, guide, x) == evaluate_elbo(model, guide, [x])
    assert FeatureStatistics.of(x).count == len(x)


def test_an_unbatched_datum_is_refused(parts: tuple[VAE, AmortizedGaussian, Tensor]) -> None:
    model, guide, x = parts
    with in_evaluation(model, guide):
        assert RegularizedELBO().loss(model, guide, x[:1]) > 0
        for program in (model, lambda x: model(x)):
            with pytest.raises(ValueError, match=r"data must be batches.*unsqueeze\(0\)"):
                RegularizedELBO().loss(program, guide, x[0])


def test_batches_of_another_kind_are_explained(
    parts: tuple[VAE, AmortizedGaussian, Tensor],
) -> None:
    model, guide, x = parts
    programs: list[Any] = [model, lambda x: model(x)]
    for program in programs:
        with pytest.raises(ValueError, match=r"must not be empty, got a tensor of shape \(0, 2\)"):
            RegularizedELBO().loss(program, guide, x[:0])
        with pytest.raises(TypeError, match=r"dtype of the networks.*got torch.float64; convert"):
            RegularizedELBO().loss(program, guide, x.double())
        for batch in DataLoader(TensorDataset(x), batch_size=20):
            with pytest.raises(TypeError, match=r"got a list with one in it.*'for \(x,\) in load"):
                RegularizedELBO().loss(program, guide, batch)


# Networks are in evaluation mode.


class Pooled(AbstractFeatures):
    name = "pooled"
    settings = MappingProxyType[str, str]({})

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.norm(images).mean((2, 3))
        return found


def of_posterior(model: VAE, guide: AmortizedGaussian, x: Tensor) -> AggregatePosterior:
    return AggregatePosterior.of(guide.posterior, x.split(20))


MEASURED: dict[str, Callable[[VAE, AmortizedGaussian, Tensor], Any]] = {
    "aggregate": lambda model, guide, x: of_posterior(model, guide, x).loc,
    "aggregate of a function": lambda model, guide, x: (
        AggregatePosterior.of(lambda few: guide.encoder(few), x.split(20)).loc
    ),
    "means": lambda model, guide, x: posterior_means(guide.posterior, x),
    "skl": lambda model, guide, x: (
        symmetric_kl(model.prior, of_posterior(model, guide, x), num_samples=50).value
    ),
    "split": lambda model, guide, x: (
        rate_split(model.prior, of_posterior(model, guide, x), num_samples=50)["rate"].value
    ),
    "leakage": lambda model, guide, x: (
        leakage_curve(model.prior, of_posterior(model, guide, x), num_samples=50)[-1].value
    ),
    "pockets": lambda model, guide, x: low_posterior_samples(
        model.prior, of_posterior(model, guide, x), num_samples=20, keep=5
    ),
    "weights": lambda model, guide, x: log_weights(model, guide, x, num_samples=7),
    "likelihood": lambda model, guide, x: (
        log_likelihoods(model, guide, x, num_samples=20, progress=False).log_likelihood
    ),
    "bound": lambda model, guide, x: evaluate_elbo(model, guide, x)["elbo"],
    "grid": lambda model, guide, x: (
        posterior_grid(StandardNormal(2), model.decoder, x[:3], reach=8.0).log_evidence
    ),
    "gap": lambda model, guide, x: (
        posterior_kl(
            guide.posterior, posterior_grid(StandardNormal(2), model.decoder, x[:3], reach=8.0)
        ).value
    ),
    "codes of layers": lambda model, guide, x: next(
        iter(layer_codes(ProductPrior([model.prior]), x[0], side=3).values())
    ),
    "codes of clusters": lambda model, guide, x: cluster_codes(
        ProductPrior([model.prior]), 1, count=3
    ),
    "export": lambda model, guide, x: (
        to_arviz(model, guide, x, num_samples=2).log_likelihood["x"].values
    ),
    "clusters": lambda model, guide, x: assigned_clusters(
        [guide.encoder(few).mean.softmax(-1)] for few in x.split(20)
    ),
}


@pytest.mark.parametrize("name", MEASURED)
def test_measurements_are_in_evaluation_mode(
    name: str, parts: tuple[VAE, AmortizedGaussian, Tensor]
) -> None:
    model, guide, x = parts
    found = []
    for training in (True, False):
        for module in (model, guide):
            module.train(training)
        model.decoder.train()  # a part may be in another mode than the whole
        modes = [module.training for module in model.modules()]
        buffers = [buffer.clone() for buffer in [*model.buffers(), *guide.buffers()]]
        torch.manual_seed(1)
        found.append(torch.as_tensor(MEASURED[name](model, guide, x)))
        assert [module.training for module in model.modules()] == modes
        after = [*model.buffers(), *guide.buffers()]
        assert all(torch.equal(a, b) for a, b in zip(buffers, after, strict=True))
    assert torch.equal(*found)


def test_features_are_in_evaluation_mode_and_the_mode_is_restored() -> None:
    pooled, images = Pooled(), torch.rand(6, 1, 4, 4)
    found = [torch.cat(list(extract(pooled, images, progress=False)))]
    assert pooled.training
    pooled.eval()
    found.append(torch.cat(list(extract(pooled, images, progress=False))))
    assert torch.equal(*found)


def test_modes_are_restored_after_an_error() -> None:
    dropout = nn.Dropout()

    def fail() -> None:
        dropout(torch.ones(2))
        assert not dropout.training
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), in_evaluation():
        fail()
    assert dropout.training
    assert not torch.equal(dropout(torch.ones(99)), torch.ones(99))
