"""Every objective, weight and metric with every family of q(z | x)."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from pyro.infer import SVI
from torch.distributions import kl_divergence

from pyro_dpvae.distributions import DiagonalNormalMixture
from pyro_dpvae.inference import CapturedSVI, FusedOptim
from pyro_dpvae.models import VAE
from pyro_dpvae.objectives import DIP, ELBO, Latents, MutualDivergence, TotalCorrelation
from pyro_dpvae.objectives._divergence import closed_divergence
from pyro_dpvae.objectives.penalties.marginals import (
    DRAWS,
    coordinate_log_prob,
    normal_marginals,
    posterior_covariance,
    posterior_mean,
)
from pyro_dpvae.priors import CouplingPrior, StandardNormal
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
        svi = kind(model, guide, FusedOptim({"lr": 0.0}), ELBO(penalties=penalties))
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
    guide, objective, x = FAMILIES["full"]().double(), ELBO(), exact.data(BATCH)
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
    exact = full_covariance(60, 3)
    z = exact.sample()
    flow = affine_flow(exact.loc, exact.scale_tril)
    for penalty in (
        TotalCorrelation(5.0, dataset_size=60, estimator="in-batch"),
        DIP(1.0, 1.0),
        MutualDivergence(1.0, 1.0),
    ):
        found = penalty(Latents((site_of(flow, z),)))
        for name, term in penalty(Latents((site_of(exact, z),))).items():
            assert float(found[name]) == pytest.approx(float(term), rel=0.1, abs=0.1)


def test_a_flow_of_one_coordinate_has_its_own_density() -> None:
    exact = full_covariance(6, 1)
    flow = affine_flow(exact.loc, exact.scale_tril)
    z = torch.randn(4, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(coordinate_log_prob(flow, z), coordinate_log_prob(exact, z))
