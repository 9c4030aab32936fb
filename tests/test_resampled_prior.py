"""The resampled prior: its density, its normaliser and its draws, against sums over a grid."""

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_dpvae.priors import ResampledPrior
from pyro_dpvae.priors.resampled import Resampled

TRUNCATION = 5


def learned(*, fixed_draws: int = 4000) -> ResampledPrior:
    """A prior that refuses most of one side."""
    torch.manual_seed(0)
    prior = ResampledPrior(
        2, hidden=(8,), truncation=TRUNCATION, draws=50, fixed_draws=fixed_draws
    ).double()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(1.5 * torch.randn_like(parameter))
        prior.network[-1].bias.sub_(2)
    return prior.eval()


def grid() -> tuple[Tensor, float]:
    axis = torch.linspace(-7, 7, 300, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), float(axis[1] - axis[0]) ** 2


def normal(z: Tensor) -> Tensor:
    return torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1).exp()


@torch.no_grad()
def test_the_normaliser_and_the_integral_are_right_within_the_stated_error() -> None:
    prior = learned()
    z, cell = grid()
    share = float((normal(z) * prior.log_acceptance(z).exp()).sum()) * cell
    found = prior.acceptance()
    error = float(found.standard_error / found.share)
    assert 0.2 < share < 0.5
    assert 0.005 < error < 0.03
    assert abs(float(found.share) / share - 1) < 4 * error
    assert abs(float(prior().log_prob(z).exp().sum()) * cell - 1) < 4 * error


@torch.no_grad()
def test_the_stated_error_is_the_spread_of_fresh_estimates() -> None:
    prior = learned().train()
    estimates = [prior.acceptance() for _ in range(100)]
    spread = torch.stack([one.share for one in estimates]).std()
    stated = torch.stack([one.standard_error for one in estimates]).mean()
    assert float(spread / stated) == pytest.approx(1, abs=0.25)


@torch.no_grad()
def test_the_density_is_that_of_truncated_rejection() -> None:
    prior = learned()
    z = torch.randn(20, 2, dtype=torch.float64)
    share, accepted = prior.acceptance().share, prior.log_acceptance(z).exp()
    # The first acceptance at try t, summed over t; and the last proposal, unasked.
    expected = sum((1 - share) ** t * accepted for t in range(TRUNCATION - 1))
    expected = normal(z) * (expected + (1 - share) ** (TRUNCATION - 1))
    torch.testing.assert_close(prior().log_prob(z).exp(), expected)


@pytest.mark.parametrize("shape", [(30_000,), (150, 200)])
@torch.no_grad()
def test_draws_follow_the_density(shape: tuple[int, ...]) -> None:
    prior = learned(fixed_draws=100_000)
    drawn = prior().expand(shape[1:]).sample(shape[:1]).reshape(-1, 2)
    z, cell = grid()
    weights = prior().log_prob(z).exp() * cell
    for angle in torch.arange(4) * 0.8:
        side = torch.stack([angle.cos(), angle.sin()]).double()
        expected, share = float(weights[z @ side > 0.4].sum()), (drawn @ side > 0.4).double()
        assert float(share.mean()) == pytest.approx(expected, abs=0.012)


def test_evaluation_is_a_function_and_training_is_not() -> None:
    prior = learned()
    z = torch.randn(5, 2, dtype=torch.float64)
    assert torch.equal(prior().log_prob(z), prior().log_prob(z))
    prior.train()
    assert not torch.equal(prior().log_prob(z), prior().log_prob(z))
    assert not prior().has_rsample


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_extreme_acceptances_leave_the_proposal_and_finite_gradients(logit: float) -> None:
    prior = ResampledPrior(2, hidden=(4,)).eval()
    with torch.no_grad():
        prior.network[-1].weight.zero_()
        prior.network[-1].bias.fill_(logit)
    z = torch.randn(5, 2)
    log_p = prior().log_prob(z)
    torch.testing.assert_close(log_p.exp(), normal(z))
    log_p.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in prior.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncation": 1}, r"truncation must be at least 2, got 1; use StandardNormal\(2\)"),
        ({"draws": 1}, "draws must be at least 2 for a standard error"),
        ({"hidden": (0,)}, "every width of the network must be at least 1"),
    ],
)
def test_bad_numbers_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResampledPrior(2, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("truncation", [0, 1])
def test_a_law_without_rejection_is_refused(truncation: int) -> None:
    half = torch.tensor(0.5)
    proposal = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    with pytest.raises(ValueError, match="truncation must be at least"):
        Resampled(
            proposal,
            log_acceptance=lambda z: half.log().expand(z.shape[:-1]),
            share=half,
            truncation=truncation,
        )
