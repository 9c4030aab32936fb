"""The aggregate posterior against torch's own mixture distribution and closed forms."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from pyro_dpvae.distributions import DiagonalNormalMixture
from pyro_dpvae.metrics import active_units, rate_split
from pyro_dpvae.mixture import AggregatePosterior, posterior_means
from pyro_dpvae.priors import StandardNormal
from tests.posteriors import affine_flow


def oracle(loc: Tensor, scale: Tensor) -> MixtureSameFamily:
    return MixtureSameFamily(
        Categorical(logits=torch.zeros(len(loc), dtype=torch.float64)),
        Independent(Normal(loc.double(), scale.double()), 1),
    )


@pytest.mark.parametrize("components", [1, 7, 1024, 2500])
@pytest.mark.parametrize("scale", [1e-3, 0.05, 2.0])
def test_log_prob_equals_torchs_mixture(components: int, scale: float) -> None:
    loc = 5 + 3 * torch.randn(components, 4)
    scales = scale * torch.rand(components, 4) + scale
    q = AggregatePosterior(loc, scales)
    near = loc[torch.randint(components, (150,))].double() + 3 * scale * torch.randn(150, 4)
    far = 20 * torch.randn(20, 4, dtype=torch.float64)
    for z in (near, far):
        exact = oracle(loc, scales).log_prob(z)
        torch.testing.assert_close(q.log_prob(z), exact, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize(("center", "spread", "stated"), [(0.0, 1.0, 0.02), (5.0, 3.0, 0.15)])
def test_float32_errs_as_stated(center: float, spread: float, stated: float) -> None:
    loc, scale = center + spread * torch.randn(2000, 32), torch.full((2000, 32), 0.03)
    z = loc[:200].double() + 0.03 * torch.randn(200, 32, dtype=torch.float64)
    exact = oracle(loc, scale).log_prob(z)
    found = AggregatePosterior(loc, scale, dtype=torch.float32).log_prob(z)
    error = float((found - exact).abs().max())
    assert 1e-4 < error < stated
    assert error < 5e-7 * float((loc - loc.mean(0)).div(scale).square().sum(-1).max())
    in_float64 = AggregatePosterior(loc, scale).log_prob(z)
    torch.testing.assert_close(in_float64, exact, rtol=0, atol=1e-8)


def test_gradient_equals_torchs_mixture() -> None:
    loc, scale = torch.randn(50, 3), torch.rand(50, 3) + 0.1
    z = torch.randn(10, 3, dtype=torch.float64, requires_grad=True)
    (ours,) = torch.autograd.grad(AggregatePosterior(loc, scale).log_prob(z).sum(), z)
    (theirs,) = torch.autograd.grad(oracle(loc, scale).log_prob(z).sum(), z)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_no_tensor_of_points_by_components_by_dimensions(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(tensor, Tensor):
                    largest = max(largest, tensor.untyped_storage().nbytes())
            return out

    q = AggregatePosterior(torch.randn(20_000, 16), torch.ones(20_000, 16))
    z = torch.randn(1000, 16)
    with torch.no_grad(), Watch():
        q.log_prob(z)
    assert largest <= 20_000 * 32 * 8  # the weights themselves; points x components is 160 MB


def test_samples_and_moments() -> None:
    loc, scale = torch.randn(40, 2), torch.rand(40, 2) + 0.2
    q = AggregatePosterior(loc, scale)
    z = q.sample((200_000,))
    torch.testing.assert_close(z.mean(0), q.mean, rtol=0, atol=0.02)
    torch.testing.assert_close(z.var(0), q.variance, rtol=0.03, atol=0.0)
    exact = oracle(loc, scale)
    torch.testing.assert_close(q.mean, exact.mean.float())
    torch.testing.assert_close(q.variance, exact.variance.float())


def test_it_works_in_a_plate_and_keeps_the_dtype() -> None:
    q = AggregatePosterior(torch.zeros(3, 2), torch.ones(3, 2)).expand((5,))
    z = q.sample()
    assert z.shape == (5, 2)
    assert q.log_prob(z).shape == (5,)
    assert q.log_prob(z).dtype == torch.float32
    assert q.log_prob(torch.zeros(2)).shape == (5,)
    one = AggregatePosterior(torch.zeros(3, 2), torch.ones(3, 2))
    assert one.log_prob(torch.zeros(0, 2)).shape == (0,)


def test_standard_normal() -> None:
    q = AggregatePosterior(torch.zeros(9, 3), torch.ones(9, 3))
    expected = -1.5 * math.log(2 * math.pi)
    assert float(q.log_prob(torch.zeros(3, dtype=torch.float64))) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("loc", "scale", "message"),
    [
        (torch.zeros(2, 3), torch.ones(3, 2), r"one shape .*got \(2, 3\) and \(3, 2\)"),
        (torch.zeros(0, 3), torch.ones(0, 3), "one shape"),
        (torch.full((2, 3), math.nan), torch.ones(2, 3), "loc must be finite, got 6 of 6"),
        (torch.zeros(2, 3), torch.zeros(2, 3), "scale must be positive and finite, got 6 of 6"),
    ],
)
def test_bad_components_are_refused(loc: Tensor, scale: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AggregatePosterior(loc, scale)


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be torch.float64 or torch.float32, got torch.bf"):
        AggregatePosterior(torch.zeros(2, 3), torch.ones(2, 3), dtype=torch.bfloat16)


def test_bad_points_and_encoders_are_refused() -> None:
    q = AggregatePosterior(torch.zeros(2, 3), torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"z must have shape \(..., 3\), got \(4, 2\)"):
        q.log_prob(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="at least one batch"):
        AggregatePosterior.of(lambda x: None, [])
    with pytest.raises(TypeError, match="must be distributions of batch shape"):
        AggregatePosterior.of(lambda x: Categorical(logits=x), [torch.zeros(2, 2)])


# Posteriors of other families.


def full(count: int, latent_dim: int, *, spread: float = 1.0) -> MultivariateNormal:
    factor = 0.3 * torch.randn(count, latent_dim, latent_dim, dtype=torch.float64).tril(-1)
    factor = factor + torch.diag_embed(torch.rand(count, latent_dim).double() + 0.2)
    loc = 3 + spread * torch.randn(count, latent_dim, dtype=torch.float64)
    return MultivariateNormal(loc, scale_tril=factor)


def mixtures(count: int, latent_dim: int) -> DiagonalNormalMixture:
    loc = torch.randn(count, 3, latent_dim, dtype=torch.float64)
    return DiagonalNormalMixture(torch.randn(count, 3).double(), loc, torch.rand_like(loc) + 0.2)


def rows(q: Any, chosen: Tensor) -> Any:
    """The posteriors of some data."""
    if isinstance(q, DiagonalNormalMixture):
        return DiagonalNormalMixture(q.logits[chosen], q.loc[chosen], q.scale[chosen])
    if isinstance(q, LowRankMultivariateNormal):
        return LowRankMultivariateNormal(q.loc[chosen], q.cov_factor[chosen], q.cov_diag[chosen])
    return MultivariateNormal(q.loc[chosen], scale_tril=q.scale_tril[chosen])


def flows(q: MultivariateNormal, chosen: Tensor) -> Any:
    return affine_flow(q.loc[chosen], q.scale_tril[chosen])


def low_rank(count: int, latent_dim: int) -> LowRankMultivariateNormal:
    factor = torch.randn(count, latent_dim, 1, dtype=torch.float64)
    return LowRankMultivariateNormal(
        factor.squeeze(-1), factor, torch.ones(count, latent_dim).double()
    )


def mean_of_densities(q: Distribution, count: int, z: Tensor) -> Tensor:
    return q.log_prob(z.unsqueeze(1)).logsumexp(-1) - math.log(count)


FAMILIES: dict[str, tuple[Callable[[int, int], Any], Callable[[Any, Tensor], Any]]] = {
    "full": (full, rows),
    "low rank": (low_rank, rows),
    "mixture": (mixtures, rows),
    "flow": (full, flows),
}


def built(family: str, count: int, latent_dim: int) -> tuple[Any, AggregatePosterior]:
    """All posteriors as one batch, and the aggregate of batches of 70 of them."""
    make, some = FAMILIES[family]
    q = make(count, latent_dim)
    batches = torch.arange(count).split(70)
    return q, AggregatePosterior.of(lambda chosen: some(q, chosen), batches)


@pytest.mark.parametrize("family", FAMILIES)
def test_log_prob_of_every_family_is_the_mean_of_the_densities(family: str) -> None:
    q, aggregate = built(family, 150, 4)
    near, far = q.sample(), 10 * torch.randn(300, 4, dtype=torch.float64)
    for z in (near, far):
        expected = mean_of_densities(q, 150, z)
        torch.testing.assert_close(aggregate.log_prob(z), expected, rtol=1e-9, atol=1e-6)
    z = near.clone().requires_grad_()
    found, expected = (
        torch.autograd.grad(log_prob.sum(), z)[0]
        for log_prob in (aggregate.log_prob(z), mean_of_densities(q, 150, z))
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_many_full_covariances_and_their_error_in_float32() -> None:
    q = full(3000, 16, spread=10.0)
    aggregate = AggregatePosterior.of(
        lambda chosen: rows(q, chosen), torch.arange(3000).split(500)
    )
    z = q.sample()[:50]
    expected = mean_of_densities(q, 3000, z)
    torch.testing.assert_close(aggregate.log_prob(z), expected, rtol=1e-9, atol=1e-6)
    in_float32 = AggregatePosterior.of(
        lambda chosen: rows(q, chosen), [torch.arange(3000)], dtype=torch.float32
    )
    error = float((in_float32.log_prob(z) - expected).abs().max())
    loc = q.loc - q.loc.mean(0)
    terms = (q.precision_matrix * loc.unsqueeze(-1) * loc.unsqueeze(-2)).abs().sum((-2, -1))
    assert 1e-6 < error < 5e-7 * float(terms.max())


@pytest.mark.parametrize("family", FAMILIES)
def test_moments_and_draws_of_every_family(family: str) -> None:
    q, aggregate = built(family, 150, 3)
    exact = family != "flow"
    assert (aggregate.moment_draws is None) == exact
    tolerance = 1e-12 if exact else 6 / 1000**0.5
    torch.testing.assert_close(aggregate.loc, q.mean, rtol=0, atol=tolerance * 2)
    torch.testing.assert_close(aggregate.scale, q.variance.sqrt(), rtol=tolerance, atol=0)
    variance = q.variance.mean(0) + q.mean.var(0, correction=0)
    wide = aggregate.expand((2,))
    z = wide.sample((100_000,))
    assert z.shape == (100_000, 2, 3)
    for moments in (z[:, 0].var(0), aggregate.variance):
        torch.testing.assert_close(moments, variance, rtol=0.03, atol=0)
    for moments in (z[:, 1].mean(0), aggregate.mean):
        torch.testing.assert_close(moments, q.mean.mean(0), rtol=0, atol=0.03)
    torch.testing.assert_close(wide.log_prob(z[0]), aggregate.log_prob(z[0]))


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_have_the_density_of_the_datum_that_they_are_of(family: str) -> None:
    # Data far apart: the datum is the one whose mean is nearest.
    make, some = FAMILIES[family]
    q = make(40, 2)
    offsets = 1000 * torch.arange(40, dtype=torch.float64)[:, None]
    if family == "mixture":
        q = DiagonalNormalMixture(q.logits, q.loc + offsets[:, None], q.scale)
    elif family == "low rank":
        q = LowRankMultivariateNormal(q.loc + offsets, q.cov_factor, q.cov_diag)
    else:
        q = MultivariateNormal(q.loc + offsets, scale_tril=q.scale_tril)
    aggregate = AggregatePosterior.of(lambda c: some(q, c), torch.arange(40).split(15))
    z, own = aggregate.sample_pairs(2000)
    datum = (z[:, 0] / 1000).round().long()
    torch.testing.assert_close(own, rows(q, datum).log_prob(z))
    assert float((datum.double().mean() - 19.5).abs()) < 1.5
    assert len(z.unique(dim=0)) == 2000


@pytest.mark.parametrize("family", ["full", "low rank", "mixture"])
def test_marginals_are_exact_without_flows(family: str) -> None:
    q, aggregate = built(family, 90, 3)
    z = q.sample()
    for d, marginal in enumerate(aggregate.marginals()):
        if isinstance(q, DiagonalNormalMixture):
            one: Distribution = DiagonalNormalMixture(
                q.logits, q.loc[..., d : d + 1], q.scale[..., d : d + 1]
            )
        else:
            one = Independent(Normal(q.mean[:, [d]], q.variance[:, [d]].sqrt()), 1)
        expected = mean_of_densities(one, 90, z[:, [d]])
        torch.testing.assert_close(marginal.log_prob(z[:, [d]]), expected)


def test_the_split_of_a_gaussian_flow_is_that_of_the_gaussian() -> None:
    q = full(60, 2)
    q = MultivariateNormal(q.loc - 3, scale_tril=q.scale_tril)
    chosen = torch.arange(60)
    splits = []
    for some in (rows, flows):
        aggregate = AggregatePosterior.of(lambda c, some=some: some(q, c), [chosen])
        splits.append(rate_split(StandardNormal(2).double(), aggregate, num_samples=4000))
    for name, exact in splits[0].items():
        of_flow = splits[1][name]
        error = math.hypot(exact.standard_error, of_flow.standard_error)
        assert abs(exact.value - of_flow.value) < 4 * error + 0.01
        assert of_flow.settings["marginals"] == "normal, of 1000 draws"
        assert "marginals" not in exact.settings
    assert splits[0]["total_correlation"].value > 0


def test_means_of_draws_make_no_unit_active() -> None:
    # One coordinate of q(z | x) is the prior, whose means of draws vary a little.
    loc = torch.stack([torch.randn(200), torch.zeros(200)], -1)
    factor = torch.eye(2).expand(200, 2, 2)
    aggregate = AggregatePosterior.of(
        lambda c: affine_flow(loc[c], factor[c]), torch.arange(200).split(100)
    )
    found = active_units(aggregate)
    assert found.value == 1.0
    assert found.settings["means"] == "of 1000 draws"


def test_means_are_those_of_the_posteriors() -> None:
    q = full(100, 2)
    batches = torch.arange(100).split(40)
    exact = posterior_means(lambda c: rows(q, c), batches)
    assert torch.equal(exact, q.loc)
    drawn = posterior_means(lambda c: flows(q, c), batches, num_samples=50)
    scores = (drawn - q.loc) / q.stddev * 50**0.5
    assert float(scores.std()) == pytest.approx(1.0, abs=0.2)
