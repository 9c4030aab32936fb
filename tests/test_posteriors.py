"""Every objective, weight and metric with every family of q(z | x)."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from pyro.infer import SVI
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_dpvae.cli import main
from pyro_dpvae.distributions import DiagonalNormalMixture
from pyro_dpvae.evaluation import EvaluationConfig, Subject, evaluate_run
from pyro_dpvae.guides import AbstractGuide
from pyro_dpvae.importance import log_weights
from pyro_dpvae.inference import CapturedSVI, FusedOptim
from pyro_dpvae.metrics import log_likelihoods
from pyro_dpvae.models import VAE
from pyro_dpvae.objectives import DIP, Latents, MutualDivergence, RegularizedELBO, TotalCorrelation
from pyro_dpvae.objectives._divergence import closed_divergence
from pyro_dpvae.objectives.penalties.marginals import (
    DRAWS,
    coordinate_log_prob,
    normal_marginals,
    posterior_covariance,
    posterior_mean,
)
from pyro_dpvae.priors import CouplingPrior, FlowDistribution, FlowTransform, StandardNormal
from pyro_dpvae.recipes import open_run
from tests.gaussian_latents import site_of
from tests.linear_gaussian import LATENT, LinearGaussian
from tests.posteriors import FAMILIES, affine_flow
from tests.test_regularizers import OBJECTIVES

BATCH = 8


@pytest.fixture(autouse=True)
def seeded() -> None:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)


@pytest.fixture
def exact() -> LinearGaussian:
    return LinearGaussian()


# Objectives.


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_learns_every_posterior(
    exact: LinearGaussian, name: str, family: str
) -> None:
    model = VAE(CouplingPrior(LATENT).double(), exact.model.decoder)
    guide = FAMILIES[family]().double()
    objective = OBJECTIVES[name]()
    objective.loss_and_grads(model, guide, exact.data(BATCH))
    assert all(bool(term.isfinite()) for term in objective.terms.values())
    for parameter in [*model.parameters(), *guide.parameters()]:
        assert parameter.grad is not None
        assert bool(parameter.grad.isfinite().all())
    assert all(bool((parameter.grad != 0).any()) for parameter in guide.parameters())


@pytest.mark.parametrize("family", ["full", "mixture", "flow"])
@pytest.mark.parametrize("name", ["beta-tc", "mae", "dip-1"])
def test_particles_of_every_posterior_are_vectorized(
    exact: LinearGaussian, name: str, family: str
) -> None:
    guide, x = FAMILIES[family]().double(), exact.data(BATCH)
    terms = []
    for vectorize in (False, True):
        objective = OBJECTIVES[name](
            num_particles=100, vectorize_particles=vectorize, max_plate_nesting=1
        )
        with torch.no_grad():
            objective.loss(exact.model, guide, x)
        terms.append({key: float(term) for key, term in objective.terms.items()})
    assert terms[1] == pytest.approx(terms[0], rel=0.2, abs=0.2)


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_are_recorded_with_every_posterior(family: str) -> None:
    exact = LinearGaussian()
    x = exact.data(BATCH).float()
    penalties = [
        TotalCorrelation(5.0, dataset_size=100),
        MutualDivergence(1.0, 0.1),
        DIP(1.0, 1.0),
    ]
    model = VAE(StandardNormal(LATENT), exact.model.decoder).float()
    losses = []
    for kind in (SVI, CapturedSVI):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        guide = FAMILIES[family]()
        svi = kind(model, guide, FusedOptim({"lr": 0.0}), RegularizedELBO(penalties=penalties))
        losses.append([svi.step(x) for _ in range(6)])
    assert svi.recordings == 1
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def full_covariance(batch: int, latent_dim: int) -> dist.MultivariateNormal:
    factor = 0.5 * torch.randn(batch, latent_dim, latent_dim, dtype=torch.float64).tril(-1)
    factor = factor + torch.diag_embed(torch.rand(batch, latent_dim, dtype=torch.float64) + 0.3)
    return dist.MultivariateNormal(torch.randn(batch, latent_dim).double(), scale_tril=factor)


def test_the_rate_of_a_full_covariance_is_in_closed_form() -> None:
    q = full_covariance(5, 4)
    loc, scale = torch.randn(4, dtype=torch.float64), torch.rand(4, dtype=torch.float64) + 0.5
    p = dist.Normal(loc, scale).to_event(1)
    full = dist.MultivariateNormal(loc, scale_tril=scale.diag())
    expected = kl_divergence(q, full)
    torch.testing.assert_close(closed_divergence(q, p), expected)
    torch.testing.assert_close(closed_divergence(q, p.expand((5,))), expected)
    torch.testing.assert_close(closed_divergence(q, ExpandedDistribution(p, (5,))), expected)
    torch.testing.assert_close(
        closed_divergence(ExpandedDistribution(q, torch.Size([3, 5])), p), expected.expand(3, 5)
    )
    factor = torch.randn(5, 4, 2, dtype=torch.float64)
    low_rank = dist.LowRankMultivariateNormal(q.loc, factor, torch.rand_like(q.loc) + 0.1)
    same = dist.MultivariateNormal(q.loc, low_rank.covariance_matrix)
    torch.testing.assert_close(closed_divergence(low_rank, p), kl_divergence(same, full))
    with pytest.raises(NotImplementedError):
        closed_divergence(q, dist.Laplace(loc, scale).to_event(1))


def test_the_rate_is_the_same_under_each_seed(exact: LinearGaussian) -> None:
    guide, objective, x = FAMILIES["full"]().double(), RegularizedELBO(), exact.data(BATCH)
    rates = []
    for seed in (0, 1):
        pyro.set_rng_seed(seed)
        objective.loss(exact.model, guide, x)
        rates.append(objective.terms["rate"])
    assert torch.equal(*rates)
    standard = dist.MultivariateNormal(torch.zeros(LATENT).double(), torch.eye(LATENT).double())
    expected = kl_divergence(guide.posterior(x), standard).mean()
    torch.testing.assert_close(rates[0], expected.detach())


# Marginals and moments.


def mixture(batch: int, components: int, latent_dim: int) -> DiagonalNormalMixture:
    loc = torch.randn(batch, components, latent_dim, dtype=torch.float64)
    logits = torch.randn(batch, components, dtype=torch.float64)
    return DiagonalNormalMixture(logits, loc, torch.rand_like(loc) + 0.2)


def test_mixtures_have_exact_marginals_and_moments() -> None:
    ours = mixture(5, 3, 2)
    theirs = dist.MixtureOfDiagNormals(ours.loc, ours.scale, ours.logits)
    torchs = dist.MixtureSameFamily(
        dist.Categorical(logits=ours.logits), dist.Normal(ours.loc, ours.scale).to_event(1)
    )
    z = torch.randn(7, 1, 2, dtype=torch.float64)
    expected = coordinate_log_prob(torchs, z)
    for q in (ours, theirs, ours.expand((5,)), ExpandedDistribution(theirs, torch.Size([5]))):
        torch.testing.assert_close(coordinate_log_prob(q, z), expected)
        assert normal_marginals(q) is None
        torch.testing.assert_close(posterior_mean(q), torchs.mean)
        torch.testing.assert_close(posterior_covariance(q), ours.covariance_matrix)
    # the densities of one coordinate, integrated over the other
    one = DiagonalNormalMixture(ours.logits[0], ours.loc[0], ours.scale[0])
    grid = torch.linspace(-12, 12, 2001, dtype=torch.float64)
    points = torch.stack([torch.full_like(grid, 0.4), grid], -1)
    integral = one.log_prob(points).exp().sum() * (grid[1] - grid[0])
    torch.testing.assert_close(coordinate_log_prob(one, points)[0, 0].exp(), integral)


def test_coordinates_of_a_gaussian_flow_are_right_within_monte_carlo_error() -> None:
    exact = full_covariance(2000, 3)
    flow = affine_flow(exact.loc, exact.scale_tril)
    torch.testing.assert_close(flow.log_prob(exact.loc), exact.log_prob(exact.loc))
    moments, truth = normal_marginals(flow), normal_marginals(exact)
    assert moments is not None
    assert truth is not None
    z_scores = (moments[0] - truth[0]) / truth[1] * DRAWS**0.5
    assert float(z_scores.mean()) == pytest.approx(0.0, abs=0.05)
    assert float(z_scores.std()) == pytest.approx(1.0, abs=0.05)
    ratio = moments[1] / truth[1]
    assert float(ratio.square().mean()) == pytest.approx(1.0, abs=0.01)
    assert float(ratio.std()) == pytest.approx((2 * DRAWS) ** -0.5, rel=0.1)
    z = exact.sample()
    difference = coordinate_log_prob(flow, z) - coordinate_log_prob(exact, z)
    assert float(difference.std()) < 0.25
    assert float(difference.mean()) == pytest.approx(0.0, abs=0.05)
    means = posterior_mean(flow)
    assert means is not None
    assert float(((means - exact.loc) / truth[1]).std()) == pytest.approx(DRAWS**-0.5, rel=0.1)
    assert posterior_covariance(flow) is None


def test_penalties_of_a_gaussian_flow_are_those_of_the_gaussian() -> None:
    narrow = full_covariance(60, 3)
    wide = narrow.scale_tril + 0.8 * torch.eye(3, dtype=torch.float64)
    exact = dist.MultivariateNormal(narrow.loc, scale_tril=wide)
    z = exact.sample()
    flow = affine_flow(exact.loc, exact.scale_tril)
    for penalty in (
        TotalCorrelation(5.0, dataset_size=60, estimator="in-batch"),
        DIP(1.0, 1.0),
        MutualDivergence(1.0, 1.0),
    ):
        found = penalty(Latents((site_of(flow, z),)))
        for name, term in penalty(Latents((site_of(exact, z),))).items():
            assert float(found[name]) == pytest.approx(float(term), rel=0.2, abs=0.1)


def test_a_flow_of_one_coordinate_has_its_own_density() -> None:
    exact = full_covariance(6, 1)
    flow = affine_flow(exact.loc, exact.scale_tril)
    z = torch.randn(4, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(coordinate_log_prob(flow, z), coordinate_log_prob(exact, z))


# Importance weights.

ROTATION = torch.tensor([[0.8, -0.6], [0.6, 0.8]], dtype=torch.float64)


class Rotated(AbstractGuide):
    """The exact posterior of the model whose latents are turned: its covariance is full."""

    def __init__(self, exact: LinearGaussian) -> None:
        super().__init__()
        self.encoder = exact.guide.encoder

    def posterior(self, x: Tensor) -> dist.MultivariateNormal:
        q = self.encoder(x)
        covariance = ROTATION.T @ torch.diag_embed(q.variance) @ ROTATION
        return dist.MultivariateNormal(q.mean @ ROTATION, covariance)


class Scattered(AbstractGuide):
    """Mixtures around the exact posterior, wider than it, in which no component is exact."""

    def __init__(self, exact: LinearGaussian) -> None:
        super().__init__()
        self.encoder = exact.guide.encoder
        self.shifts = torch.tensor([[0.5, 0.0], [-0.3, 0.4], [0.0, -0.6]], dtype=torch.float64)

    def posterior(self, x: Tensor) -> DiagonalNormalMixture:
        q = self.encoder(x)
        scale = 1.3 * q.stddev.unsqueeze(-2).expand(-1, 3, -1)
        loc = q.mean.unsqueeze(-2) + self.shifts * scale
        logits = torch.tensor([0.2, 0.0, -0.5], dtype=torch.float64).expand(len(x), 3)
        return DiagonalNormalMixture(logits, loc, scale)


@pytest.fixture
def rotated(exact: LinearGaussian) -> LinearGaussian:
    """The model with turned latents: p(x) is the same."""
    with torch.no_grad():
        for parameter in exact.model.decoder.parameters():
            if parameter.shape == exact.weight.shape:
                parameter.copy_(exact.weight @ ROTATION)
    return exact


def test_the_exact_full_covariance_has_equal_weights(rotated: LinearGaussian) -> None:
    x, guide = rotated.data(6), Rotated(rotated)
    expected = rotated.log_prob(x)
    weights = log_weights(rotated.model, guide, x, num_samples=10)
    torch.testing.assert_close(weights, expected.expand(10, 6), rtol=0, atol=1e-6)
    objective = RegularizedELBO(num_particles=4000, vectorize_particles=True, max_plate_nesting=1)
    bound = -objective.loss(rotated.model, guide, x)
    assert bound == pytest.approx(float(expected.sum()), abs=0.3)


def test_weights_of_a_mixture_have_no_bias(exact: LinearGaussian) -> None:
    x = exact.data(40)
    ratios = (
        log_weights(exact.model, Scattered(exact), x, num_samples=4000) - exact.log_prob(x)
    ).exp()
    scores = (ratios.mean(0) - 1) / ratios.std(0) * 4000**0.5
    assert float(scores.abs().max()) < 4
    assert float(scores.std()) == pytest.approx(1.0, abs=0.3)
    assert float(ratios.std()) > 0.1
    found = log_likelihoods(exact.model, Scattered(exact), [x], num_samples=4000, progress=False)
    torch.testing.assert_close(found.log_likelihood, exact.log_prob(x), rtol=0, atol=0.1)


# Runs.


class Remade(AbstractGuide):
    """A trained encoder's posteriors, as another family of about the same posteriors."""

    def __init__(self, trained: AbstractGuide, family: str) -> None:
        super().__init__()
        self.trained, self.family = trained, family
        self.maps = CouplingPrior(2, blocks=1)

    def posterior(self, x: Tensor) -> Any:
        q = self.trained.posterior(x)
        if self.family == "full":
            return dist.MultivariateNormal(q.mean, scale_tril=torch.diag_embed(q.stddev))
        if self.family == "mixture":
            loc = q.mean.unsqueeze(-2) + 0.1 * torch.tensor([[1.0, 0.0], [-1.0, 0.5]])
            scale = q.stddev.unsqueeze(-2).expand(-1, 2, -1)
            return DiagonalNormalMixture(torch.zeros(len(x), 2), loc, scale)
        return FlowDistribution(q, FlowTransform(self.maps))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    arguments = ["--data", "digits", "--network", "mlp", "--latent-dim", "2", "--steps", "20"]
    assert main(["train", *arguments, "--backend", "eager", "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize("family", ["full", "mixture", "flow"])
def test_runs_of_every_posterior_are_evaluated(
    family: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyro_dpvae.recipes.run._FLOWS", 200)
    saved = open_run(run)
    guide = Remade(saved.system.guide, family).eval()
    saved = replace(saved, system=replace(saved.system, guide=guide))
    config = EvaluationConfig(nll_samples=50, nll_data=20, latent_samples=200, images=20)
    groups = ["elbo", "skl", "leakage", "split", "probe", "clusters", "nll"]

    def measured(names: list[str]) -> dict[str, dict[str, Any]]:
        (run / "evaluation.json").unlink(missing_ok=True)
        return evaluate_run(Subject(saved, saved.load_data(), config, progress=False), names)

    found = measured(groups)
    size = 200 if family == "flow" else len(saved.load_data().train)
    assert found["skl"]["settings"]["components"] == size
    assert found["active_units"]["settings"]["data"] == size
    assert all(math.isfinite(one["value"]) for one in found.values())
    # Each group's draws are its own, whichever others are measured.
    for name, keys in (("skl", ["skl"]), ("clusters", ["cluster_nmi"]), ("split", ["rate"])):
        alone = measured([name])
        assert all(alone[key] == found[key] for key in keys)

    if family == "flow":
        monkeypatch.setattr("pyro_dpvae.cli.plot.opened_run", lambda options: saved)
        assert main(["plot", str(run), "--number", "4", "--out", str(tmp_path)]) == 0
        assert (tmp_path / "latent.png").exists()
