"""A trained run, opened in Python: what it encodes, decodes, draws and measures."""

from pathlib import Path

import pyro
import pytest
import torch
from torch import Tensor, nn

from pyro_dpvae import VAE, AmortizedGaussian, CouplingPrior, Decoder, GaussianEncoder
from pyro_dpvae.cli import main
from pyro_dpvae.data import Batches, load
from pyro_dpvae.likelihoods import GaussianLikelihood
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.recipes import SavedSystem, open_system
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.training import TrainConfig, fit

STEPS = ["--steps", "20", "--backend", "eager", "--latent-dim", "3"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each preprocessing, and one of points."""
    folder = tmp_path_factory.mktemp("runs")
    small = ["--network", "mlp", "--network.hidden", "[8]", *STEPS]
    kinds = {
        "grey": ["--likelihood", "gaussian"],
        "binary-static": ["--likelihood", "bernoulli"],
        "binary-dynamic": ["--likelihood", "bernoulli"],
        "logit": ["--likelihood", "gaussian"],
    }
    for name, options in kinds.items():
        command = ["train", "--data", "digits", "--preprocessing", name, *options, *small]
        assert main([*command, "--out", str(folder / name)]) == 0
    assert main(["train", "--data", "two-moons", *STEPS, "--out", str(folder / "points")]) == 0
    return {name: folder / name for name in (*kinds, "points")}


@pytest.mark.parametrize("name", ["grey", "binary-static", "binary-dynamic", "logit", "points"])
def test_a_run_sees_data_as_its_training_did(runs: dict[str, Path], name: str) -> None:
    run = open_system(runs[name])
    x = run.data.test[:7]
    seen = next(run.batches(run.data.test, batch_size=7).epoch(0))
    torch.testing.assert_close(run._seen(x), seen)
    with torch.no_grad():
        expected = run.guide.posterior(seen)
    q = run.encode(x)
    torch.testing.assert_close(q.mean, expected.mean)
    assert not q.mean.requires_grad


@pytest.mark.parametrize("name", ["grey", "logit", "points"])
def test_what_a_run_returns_has_the_shape_and_range_of_data(
    runs: dict[str, Path], name: str
) -> None:
    run = open_system(runs[name])
    x = run.data.test[:4]
    for found in (
        run.reconstruct(x),
        run.sample(4),
        run.sample(4, draw=True),
        run.interpolate(x[0], x[1], steps=4),
        run.interpolate(x[0], x[1], steps=4, space="representation"),
    ):
        assert found.shape == x.shape
        if name != "points":
            assert 0 <= float(found.min()) <= float(found.max()) <= 1


def test_samples_repeat_by_their_seed_and_leave_random_numbers_alone(
    runs: dict[str, Path],
) -> None:
    run = open_system(runs["grey"])
    state = torch.get_rng_state()
    first, again, other = (run.sample(3, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    noisy = run.sample(3, seed=5, draw=True)
    assert not torch.equal(noisy, first)
    assert torch.equal(torch.get_rng_state(), state)


def test_paths_are_straight_in_the_space_that_is_asked_for(runs: dict[str, Path]) -> None:
    run = open_system(runs["points"])
    a, b = run.data.test[0], run.data.test[40]
    ends = run.encode(torch.stack([a, b])).mean
    prior = run.model.prior
    with torch.no_grad():
        middle = run.decode(ends.mean(0, keepdim=True))
        z0 = prior.to_generation(ends)[0].mean(0, keepdim=True)
        other = run.decode(prior.to_representation(z0))
    straight = run.interpolate(a, b, steps=3, space="representation")
    torch.testing.assert_close(straight[1], middle[0])
    torch.testing.assert_close(run.interpolate(a, b, steps=3)[1], other[0])
    torch.testing.assert_close(straight[[0, 2]], run.reconstruct(torch.stack([a, b])))


def test_a_run_measures_and_says_what_was_measured(runs: dict[str, Path]) -> None:
    run = open_system(runs["points"])
    assert run.metrics == {}
    found = run.log_likelihood(run.data.test[:50], 200)
    assert found.log_likelihood.shape == (50,)
    assert main(["evaluate", str(runs["points"]), "--metrics", "elbo"]) == 0
    bound = open_system(runs["points"]).metrics["elbo"]
    assert set(bound) == {"value", "standard_error", "settings"}
    # An importance-weighted estimate is above the bound.
    every = run.log_likelihood(run.data.test, 200).log_likelihood.mean()
    assert float(every) > bound["value"]
    assert run.config["data"] == "two-moons"
    q = run.aggregate_posterior()
    assert q.log_prob(torch.zeros(2, 3)).isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: run.encode(torch.zeros(2)), r"shape \(batch, 2\), got \(2,\); give items"),
        (lambda run: run.sample(0), "count must be at least 1, got 0"),
        (lambda run: run.interpolate(*torch.zeros(2, 2), steps=1), "at least 2, for both ends"),
        (lambda run: run.interpolate(*torch.zeros(2, 2), space="x"), "space must be one of gener"),
    ],
)
def test_what_a_run_cannot_do_is_refused(
    runs: dict[str, Path], call: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(open_system(runs["points"]))  # type: ignore[operator]


def own_parts() -> tuple[VAE, AmortizedGaussian]:
    pyro.clear_param_store()
    decoder = Decoder(nn.Linear(2, 2), GaussianLikelihood((2,)))
    encoder = GaussianEncoder(nn.Sequential(nn.Linear(2, 16), nn.ReLU()), 2)
    return VAE(CouplingPrior(2), decoder), AmortizedGaussian(encoder)


def test_a_run_of_a_program_opens_with_its_parts_and_else_says_which_are_missing(
    tmp_path: Path,
) -> None:
    data = load("two-moons")
    model, guide = own_parts()
    batches = {"batch_size": 100, "preprocessing": "none"}
    fit(
        model,
        guide,
        objective=RegularizedELBO(),
        train=Batches(data.train, **batches),
        test=Batches(data.test, **batches),
        config=TrainConfig(steps=20),
        run=RunFolder.create(tmp_path / "run", {"data": "two-moons", "seed": 0}),
        progress=False,
    )
    with pytest.raises(
        ValueError, match=r"trained pyro_dpvae.models.vae.VAE with .*Gaussian; bui"
    ):
        open_system(tmp_path / "run")
    opened: SavedSystem = open_system(
        tmp_path / "run", **dict(zip(("model", "guide"), own_parts(), strict=True))
    )
    x: Tensor = data.test[:5]
    with torch.no_grad():
        expected = guide.posterior(x).mean
    torch.testing.assert_close(opened.encode(x).mean, expected)
