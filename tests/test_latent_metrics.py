"""Metrics of prior and aggregate posterior, against integrals over a grid."""

import functools
import math
from collections.abc import Callable

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_dpvae.metrics import (
    Estimate,
    active_units,
    high_posterior_samples,
    kl_divergences,
    leakage_curve,
    low_posterior_samples,
    rate_split,
    split_half_kl,
    symmetric_kl,
    unit_activity,
)
from pyro_dpvae.mixture import AggregatePosterior
from pyro_dpvae.priors import AbstractPrior, CouplingPrior, StandardNormal
from tests.linear_gaussian import LATENT, LinearGaussian

GRID = torch.linspace(-9, 9, 1201, dtype=torch.float64)
CELL = float(GRID[1] - GRID[0]) ** 2
POINTS = torch.cartesian_prod(GRID, GRID)


@functools.cache
def some_posteriors() -> AggregatePosterior:
    """q(z) of five data under the exact posteriors of a linear-Gaussian VAE."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        exact = LinearGaussian()
        return AggregatePosterior.of(exact.guide.encoder, [1.5 * exact.data(5)])


def log_q(aggregate: AggregatePosterior, points: Tensor) -> Tensor:
    """The mixture by torch's own distributions."""
    components = torch.distributions.Independent(
        torch.distributions.Normal(aggregate.loc.double(), aggregate.scale.double()), 1
    )
    logits = torch.zeros(len(aggregate.loc), dtype=torch.float64)
    weights = torch.distributions.Categorical(logits=logits)
    mixture = torch.distributions.MixtureSameFamily(weights, components)
    return torch.cat([mixture.log_prob(tile) for tile in points.split(100_000)])


def log_p(points: Tensor) -> Tensor:
    return torch.distributions.Normal(0.0, 1.0).log_prob(points).sum(-1)


def integral(values: Tensor) -> float:
    return float(values.sum()) * CELL


@pytest.fixture(scope="module")
def densities() -> tuple[Tensor, Tensor]:
    """log q and log p over the grid."""
    return log_q(some_posteriors(), POINTS), log_p(POINTS)


def exact_symmetric_kl(densities: tuple[Tensor, Tensor]) -> float:
    q, p = densities
    return integral((q.exp() - p.exp()) * (q - p))


def test_symmetric_kl_is_its_integral(densities: tuple[Tensor, Tensor]) -> None:
    exact = exact_symmetric_kl(densities)
    found = symmetric_kl(StandardNormal(2), some_posteriors(), num_samples=50_000)
    assert abs(found.value - exact) < 3 * found.standard_error
    assert found.standard_error < exact / 20


def coverage(exact: float, estimate: Callable[[], Estimate]) -> float:
    """The share of 200 intervals of 95 % that hold the exact value."""
    covered = 0
    for _ in range(200):
        found = estimate()
        covered += abs(found.value - exact) < 1.96 * found.standard_error
    return covered / 200


def test_the_two_divergences_are_their_integrals(densities: tuple[Tensor, Tensor]) -> None:
    of_q, of_p = densities
    found = kl_divergences(StandardNormal(2), some_posteriors(), num_samples=50_000)
    for one, exact in zip(
        found,
        (integral(of_p.exp() * (of_p - of_q)), integral(of_q.exp() * (of_q - of_p))),
        strict=True,
    ):
        assert abs(one.value - exact) < 4 * one.standard_error


def test_halves_tell_whether_data_suffice_for_the_width_of_posteriors() -> None:
    """The means are such that q(z) of endless data is N(0, I), the prior: the divergence is 0."""

    def measured(latent: int, scale: float) -> tuple[float, float]:
        loc = torch.randn(4000, latent) * math.sqrt(1 - scale**2)
        q = AggregatePosterior(loc, torch.full_like(loc, scale))
        return symmetric_kl(StandardNormal(latent), q).value, split_half_kl(q).value

    torch.manual_seed(0)
    divergence, halves = measured(2, 0.5)
    assert divergence < 0.02
    assert halves < 0.02
    divergence, halves = measured(10, 0.2)
    assert divergence > 20  # for want of data, which the halves show
    assert halves > 20


def test_halves_need_two_components() -> None:
    with pytest.raises(ValueError, match="two components, got 1"):
        split_half_kl(AggregatePosterior(torch.zeros(1, 2), torch.ones(1, 2)))


def test_intervals_of_symmetric_kl_cover(densities: tuple[Tensor, Tensor]) -> None:
    exact = exact_symmetric_kl(densities)
    q = some_posteriors()
    share = coverage(exact, lambda: symmetric_kl(StandardNormal(2), q, num_samples=4000))
    assert 0.90 <= share <= 0.99


def test_the_nearest_neighbour_estimate_is_near(densities: tuple[Tensor, Tensor]) -> None:
    exact = exact_symmetric_kl(densities)
    q = some_posteriors()
    found = symmetric_kl(StandardNormal(2), q, num_samples=5000, estimator="nearest")
    assert found.value == pytest.approx(exact, rel=0.2)
    assert found.settings["estimator"] == "nearest"
    same = AggregatePosterior(torch.zeros(1, 2), torch.ones(1, 2))
    zero = symmetric_kl(StandardNormal(2), same, num_samples=5000, estimator="nearest")
    assert abs(zero.value) < 0.2
    assert math.isnan(zero.standard_error)
    with pytest.raises(ValueError, match="estimator must be one of"):
        symmetric_kl(StandardNormal(2), same, estimator="kde")


@pytest.mark.parametrize("threshold", [-2.5, -3.5, -5.0])
@pytest.mark.parametrize("conditional", [False, True])
def test_leakage_is_its_integral(
    threshold: float, conditional: bool, densities: tuple[Tensor, Tensor]
) -> None:
    q, p = densities
    below = p < threshold
    share = integral(q.exp() * below)
    exact = integral(q.exp() * (q - p) * below) / (share if conditional else 1)
    (found,) = leakage_curve(
        StandardNormal(2),
        some_posteriors(),
        thresholds=[threshold],
        num_samples=50_000,
        conditional=conditional,
    )
    assert abs(found.value - exact) < 3 * found.standard_error
    assert found.settings["share_below"] == pytest.approx(share, abs=0.01)


def test_intervals_of_leakage_cover(densities: tuple[Tensor, Tensor]) -> None:
    q, p = densities
    exact = integral(q.exp() * (q - p) * (p < -3.5))
    aggregate = some_posteriors()

    def estimate() -> Estimate:
        return leakage_curve(StandardNormal(2), aggregate, thresholds=[-3.5])[0]

    assert 0.90 <= coverage(exact, estimate) <= 0.99


def test_no_leak_is_a_score_of_zero() -> None:
    q = AggregatePosterior(torch.zeros(1, 2), torch.full((1, 2), 0.5))
    for conditional in (False, True):
        (found,) = leakage_curve(StandardNormal(2), q, thresholds=[-90.0], conditional=conditional)
        assert found.value == 0.0
        assert found.settings["share_below"] == 0.0
        assert math.isnan(found.standard_error)


def test_the_rate_splits_into_its_integrals(densities: tuple[Tensor, Tensor]) -> None:
    aggregate = some_posteriors()
    q, p = densities
    marginals = []
    for d in range(2):
        normal = torch.distributions.Normal(
            aggregate.loc[:, d].double(), aggregate.scale[:, d].double()
        )
        marginals.append(normal.log_prob(POINTS[:, d : d + 1]).logsumexp(-1) - math.log(5))
    product = marginals[0] + marginals[1]
    entropy = -(aggregate.scale.double().log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)
    exact = {
        "mutual_information": float(entropy.mean()) - integral(q.exp() * q),
        "total_correlation": integral(q.exp() * (q - product)),
        "dimension_wise_kl": integral(q.exp() * (product - p)),
        "marginal_kl": integral(q.exp() * (q - p)),
    }
    found = rate_split(StandardNormal(2), aggregate, num_samples=50_000)
    for name, value in exact.items():
        assert abs(found[name].value - value) < 3 * found[name].standard_error, name
    loc, scale = aggregate.loc.double(), aggregate.scale.double()
    rate = (0.5 * (loc.square() + scale.square() - 1) - scale.log()).sum(-1).mean()
    assert abs(found["rate"].value - float(rate)) < 3 * found["rate"].standard_error
    parts = ("mutual_information", "total_correlation", "dimension_wise_kl")
    assert sum(found[part].value for part in parts) == pytest.approx(found["rate"].value)

    share = coverage(
        exact["mutual_information"],
        lambda: rate_split(StandardNormal(2), aggregate, num_samples=1000)["mutual_information"],
    )
    assert 0.90 <= share <= 0.99


def test_an_exact_vae_has_no_divergence_and_known_information() -> None:
    # The aggregate posterior of exact posteriors over many data of the model is the prior, and
    # the mutual information of x and z is -1/2 sum log of the posterior variances.
    exact = LinearGaussian()
    x = exact.data(4000)
    aggregate = AggregatePosterior.of(exact.guide.encoder, x.split(500))
    prior = exact.model.prior
    assert symmetric_kl(prior, aggregate).value < 0.02
    found = rate_split(prior, aggregate)
    information = -exact.guide.encoder(x[:1]).base_dist.scale.detach().log().sum()
    assert found["mutual_information"].value == pytest.approx(float(information), abs=0.05)
    assert abs(found["total_correlation"].value) < 0.02
    for score in leakage_curve(prior, aggregate, num_samples=20_000):
        assert abs(score.value) < 0.02
    assert active_units(aggregate).value == LATENT


def identity_flow(latent_dim: int) -> CouplingPrior:
    prior = CouplingPrior(latent_dim).double()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.zero_()
    return prior


def test_a_coupling_prior_with_an_identity_flow_changes_nothing() -> None:
    aggregate = some_posteriors()
    found = []
    for prior in (StandardNormal(2).double(), identity_flow(2)):
        torch.manual_seed(0)
        found.append(
            [
                symmetric_kl(prior, aggregate, num_samples=500).value,
                symmetric_kl(prior, aggregate, num_samples=500, estimator="nearest").value,
                *(score.value for score in leakage_curve(prior, aggregate)),
                *(score.value for score in leakage_curve(prior, aggregate, conditional=True)),
                *(term.value for term in rate_split(prior, aggregate, num_samples=500).values()),
                float(low_posterior_samples(prior, aggregate, num_samples=99, keep=9).sum()),
                float(high_posterior_samples(prior, aggregate, num_samples=99, keep=9).sum()),
            ]
        )
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_batches_of_the_data_change_nothing() -> None:
    exact = LinearGaussian()
    x = exact.data(100)
    whole = AggregatePosterior.of(exact.guide.encoder, [x])
    parts = AggregatePosterior.of(exact.guide.encoder, x[torch.randperm(100)].split(7))
    z = torch.randn(20, LATENT, dtype=torch.float64)
    torch.testing.assert_close(whole.log_prob(z), parts.log_prob(z))
    for name, found in rate_split(exact.model.prior, whole, num_samples=4000).items():
        other = rate_split(exact.model.prior, parts, num_samples=4000)[name]
        error = math.hypot(found.standard_error, other.standard_error)
        assert abs(found.value - other.value) < 4 * error, name


def test_order_and_repetition_of_the_data_change_nothing() -> None:
    aggregate = some_posteriors()
    order = torch.randperm(5)
    shuffled = AggregatePosterior(
        aggregate.loc[order].repeat(3, 1), aggregate.scale[order].repeat(3, 1)
    )
    points = torch.randn(50, 2).double()
    torch.testing.assert_close(aggregate.log_prob(points), shuffled.log_prob(points))
    assert active_units(aggregate).value == active_units(shuffled).value


def test_high_posterior_samples_are_the_least_of_p() -> None:
    torch.manual_seed(5)
    prior = CouplingPrior(2).double()
    z = high_posterior_samples(prior, some_posteriors(), num_samples=1000, keep=50)
    with torch.no_grad():
        z0, log_det = prior.to_generation(z)
        density = log_p(z0) + log_det
    assert torch.equal(density.argsort(stable=True), torch.arange(50))
    with pytest.raises(ValueError, match="at most num_samples, got 20 of 10 samples"):
        high_posterior_samples(prior, some_posteriors(), num_samples=10, keep=20)


def test_a_threshold_in_generation_space_is_on_the_density_of_z0() -> None:
    # z = 3 z0 + 1: in generation space log p0 is larger by log 9 than log p(z), everywhere.
    class Stretched(AbstractPrior):
        def forward(self) -> dist.Distribution:
            return dist.Normal(torch.ones(2).double(), 3.0).to_event(1)

        def base(self) -> dist.Distribution:
            return dist.Normal(torch.zeros(2).double(), 1.0).to_event(1)

        def to_generation(self, z: Tensor) -> tuple[Tensor, Tensor]:
            return (z - 1) / 3, torch.full(z.shape[:-1], -math.log(9), dtype=z.dtype)

        def to_representation(self, z0: Tensor) -> Tensor:
            return 3 * z0 + 1

    prior, aggregate, found = Stretched(2), some_posteriors(), []
    for threshold, space in ((-5.0, "representation"), (-5.0 + math.log(9), "generation")):
        torch.manual_seed(0)
        (score,) = leakage_curve(prior, aggregate, thresholds=[threshold], space=space)
        assert score.settings["space"] == space
        found.append((score.value, score.settings["share_below"]))
    assert found[0] == pytest.approx(found[1])
    assert 0 < found[0][1] < 1


def test_high_posterior_samples_of_generation_space_are_the_least_of_p0() -> None:
    torch.manual_seed(5)
    prior = CouplingPrior(2).double()
    z = high_posterior_samples(
        prior, some_posteriors(), num_samples=1000, keep=50, space="generation"
    )
    with torch.no_grad():
        density, other = log_p(prior.to_generation(z)[0]), prior().log_prob(z)
    assert torch.equal(density.argsort(stable=True), torch.arange(50))
    assert not torch.equal(other.argsort(stable=True), torch.arange(50))


def test_active_units_count_the_spread_of_means() -> None:
    loc = torch.tensor([[0.0, -1.0, 0.1], [0.0, 1.0, -0.1]]).repeat(50, 1)
    aggregate = AggregatePosterior(loc, torch.ones_like(loc))
    torch.testing.assert_close(unit_activity(aggregate), loc.double().var(0))
    found = active_units(aggregate)
    assert found.value == 2.0
    assert found.settings == {"threshold": 0.01, "data": 100, "units": 3}
