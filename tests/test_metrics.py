"""Metrics against closed forms."""

import pytest
import torch

from pyro_dpvae.metrics import distance_to_data, low_posterior_samples, symmetric_kl
from pyro_dpvae.mixture import AggregatePosterior
from pyro_dpvae.priors import CouplingPrior, StandardNormal


def gaussian(mean: float, deviation: float, dims: int = 2) -> AggregatePosterior:
    return AggregatePosterior(torch.full((1, dims), mean), torch.full((1, dims), deviation))


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (0.7, 1.0), (0.3, 0.6), (1.0, 1.4)])
def test_symmetric_kl_equals_the_closed_form(mean: float, deviation: float) -> None:
    p = torch.distributions.Normal(0.0, 1.0)
    q = torch.distributions.Normal(mean, deviation)
    kl = torch.distributions.kl_divergence
    exact = 2 * float(kl(p, q) + kl(q, p))
    estimate = symmetric_kl(StandardNormal(2), gaussian(mean, deviation), num_samples=20_000)
    assert abs(estimate.value - exact) <= 4 * estimate.standard_error + 1e-6
    assert estimate.settings["samples"] == 20_000


def test_standard_errors_are_the_spread_of_repetitions() -> None:
    q = gaussian(0.5, 0.8)
    runs = [symmetric_kl(StandardNormal(2), q, num_samples=500) for _ in range(200)]
    spread = float(torch.tensor([run.value for run in runs]).std())
    stated = float(torch.tensor([run.standard_error for run in runs]).mean())
    assert stated == pytest.approx(spread, rel=0.2)


def test_symmetric_kl_is_the_same_in_either_space() -> None:
    # A bijection keeps the divergence, so a coupling prior against its own samples is near 0.
    prior = CouplingPrior(2)
    with torch.no_grad():
        z = prior().sample((20_000,))
    q = AggregatePosterior(z, torch.full_like(z, 0.1))
    assert symmetric_kl(prior, q).value < 0.1
    assert symmetric_kl(StandardNormal(2), q).value > 0.1


def test_low_posterior_samples_are_the_least_of_q() -> None:
    q = gaussian(2.0, 0.5)
    z = low_posterior_samples(StandardNormal(2), q, num_samples=2000, keep=100)
    densities = q.log_prob(z.double())
    assert torch.equal(densities, densities.sort().values)
    torch.manual_seed(1)
    rest = q.log_prob(StandardNormal(2)().sample((2000,)).double())
    assert float((rest < densities.max()).double().mean()) == pytest.approx(0.05, abs=0.02)
    with pytest.raises(ValueError, match="at most num_samples, got 20 of 10 samples"):
        low_posterior_samples(StandardNormal(2), q, num_samples=10, keep=20)


def test_distance_to_data() -> None:
    data = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    samples = torch.tensor([[3.0, 4.0], [10.0, 1.0]])
    assert distance_to_data(samples, data).value == pytest.approx(3.0)
    assert distance_to_data(data, data).value == 0
    far = distance_to_data(samples + 1e6, data + 1e6)
    assert far.value == pytest.approx(3.0, rel=0.1)
    with pytest.raises(ValueError, match=r"one shape.* got shapes \(2, 2\) and \(3, 1\)"):
        distance_to_data(samples, torch.zeros(3, 1))


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 for a standard error, got 1"):
        symmetric_kl(StandardNormal(2), gaussian(0.0, 1.0), num_samples=1)
