"""The aggregate posterior against torch's own mixture distribution and closed forms."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from pyro_dpvae.mixture import AggregatePosterior


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
    assert q.log_prob(torch.zeros(0, 2)).shape == (0,)


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
