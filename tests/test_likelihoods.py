"""Likelihoods against sums and integrals over all data, torch's own densities, and their rules."""

from collections.abc import Callable, Iterator
from itertools import product
from math import log, pi
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_dpvae.likelihoods import (
    LIKELIHOODS,
    AbstractLikelihood,
    BernoulliLikelihood,
    CategoricalLikelihood,
    ContinuousBernoulliLikelihood,
    DiscretizedLogisticLikelihood,
    DiscretizedLogisticMixtureLikelihood,
    GaussianLearnedVarianceLikelihood,
    GaussianLikelihood,
    GaussianPixelVarianceLikelihood,
    LaplaceLearnedScaleLikelihood,
    LaplaceLikelihood,
    MixedLikelihood,
    NegativeBinomialLikelihood,
    PoissonLikelihood,
)

GRID = torch.arange(256, dtype=torch.float64)[:, None] / 255
SHAPE = (2, 3, 4)
NAMES = sorted(LIKELIHOODS)
CONTINUOUS = [name for name in NAMES if name.startswith("gaussian")]


def valid(name: str, *batch: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Data that every check of a likelihood accepts."""
    x = torch.rand(*batch, *shape)
    if name == "bernoulli":
        return x.round()
    if name in ("categorical", "negative-binomial", "poisson"):
        return (10 * x).floor()
    return (x * 255).round() / 255 if name.startswith("logistic") else x


def built(
    name: str, shape: tuple[int, ...] = SHAPE
) -> tuple[AbstractLikelihood, Callable[..., TorchDistributionMixin]]:
    likelihood = LIKELIHOODS[name](shape)
    return likelihood, lambda *batch: likelihood(torch.randn(*batch, *likelihood.raw_shape))


def gauss_legendre(low: float, high: float) -> tuple[Tensor, Tensor]:
    """Nodes and weights of 400 intervals with two nodes each, in float64."""
    edges = torch.linspace(low, high, 401, dtype=torch.float64)
    centre, half = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]) / 2
    nodes = torch.cat([centre - half / 3**0.5, centre + half / 3**0.5])
    return nodes, torch.cat([half, half])


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e3])
def test_bernoulli_sums_to_one_over_all_images(scale: float) -> None:
    p = BernoulliLikelihood((1, 2, 2))(scale * torch.randn(1, 2, 2, dtype=torch.float64))
    images = torch.tensor(list(product([0.0, 1.0], repeat=4)), dtype=torch.float64)
    total = p.log_prob(images.reshape(-1, 1, 2, 2)).exp().sum()
    torch.testing.assert_close(total.item(), 1.0)


@pytest.mark.parametrize("scale", [0.0, 1.0, 20.0, 300.0])
def test_bernoulli_is_its_formula(scale: float) -> None:
    raw, x = scale * torch.randn(5, *SHAPE), valid("bernoulli", 5)
    expected = -torch.nn.functional.softplus((1 - 2 * x) * raw.double()).sum((1, 2, 3))
    torch.testing.assert_close(BernoulliLikelihood(SHAPE)(raw).log_prob(x), expected.float())


LOGISTIC = [(0.5, -2.0), (0.0, -5.0), (1.0, 0.0), (0.3, -9.0), (-50.0, -4.0), (7.0, 3.0)]
EXTREMES = [(0.5, -1e4), (0.5, 1e4), (1e8, -1e4), (-1e8, 1e4), (1e8, 0.0), (0.5019, -8.0)]


@pytest.mark.parametrize("raw", LOGISTIC + EXTREMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logistic_sums_to_one_over_all_levels(
    raw: tuple[float, float], dtype: torch.dtype
) -> None:
    raw_values = torch.tensor(raw, dtype=dtype, requires_grad=True)
    log_p = DiscretizedLogisticLikelihood((1,))(raw_values).log_prob(GRID.to(dtype))
    assert log_p.isfinite().all()
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    assert abs(log_p.exp().sum().item() - 1) < tolerance
    log_p.sum().backward()
    assert raw_values.grad is not None
    assert raw_values.grad.isfinite().all()


@pytest.mark.parametrize(("mean", "log_scale"), LOGISTIC[:4])
def test_logistic_is_a_difference_of_cdfs(mean: float, log_scale: float) -> None:
    scale = torch.tensor(log_scale, dtype=torch.float64).exp()
    edges = (torch.arange(255, dtype=torch.float64) + 0.5) / 255
    cdf = torch.sigmoid((edges - mean) / scale)
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    expected = torch.diff(torch.cat([zero, cdf, one]))
    p = DiscretizedLogisticLikelihood((1,))(torch.tensor([mean, log_scale], dtype=torch.float64))
    torch.testing.assert_close(p.log_prob(GRID).exp(), expected, rtol=1e-6, atol=1e-14)


@pytest.mark.parametrize("raw", LOGISTIC + EXTREMES)
def test_logistic_mean_is_the_sum(raw: tuple[float, float]) -> None:
    p = DiscretizedLogisticLikelihood((1,))(torch.tensor(raw, dtype=torch.float64))
    expected = (p.log_prob(GRID).exp() * GRID[:, 0]).sum()
    torch.testing.assert_close(p.mean[0], expected)


def test_logistic_sums_to_one_over_a_two_pixel_image() -> None:
    p = DiscretizedLogisticLikelihood((2, 1, 1))(torch.randn(4, 1, 1, dtype=torch.float64))
    levels = GRID[:, 0]
    images = torch.cartesian_prod(levels, levels)[..., None, None]
    torch.testing.assert_close(p.log_prob(images).exp().sum().item(), 1.0)


def colour_probability(raw: Tensor, colour: tuple[int, ...]) -> Tensor:
    """P of a colour of four levels, from 10 raw values for each of some components."""
    logits, *means, s_0, s_1, s_2, a_10, a_20, a_21 = raw.reshape(10, -1)
    y = [2 * level / 3 - 1 for level in colour]
    means[1] = means[1] + a_10.tanh() * y[0]
    means[2] = means[2] + a_20.tanh() * y[0] + a_21.tanh() * y[1]
    of_components = logits.softmax(0)
    for level, center, mean, log_scale in zip(colour, y, means, (s_0, s_1, s_2), strict=True):
        low, high = (torch.sigmoid((center + d - mean) / log_scale.exp()) for d in (-1 / 3, 1 / 3))
        of_components = of_components * ((1 if level == 3 else high) - (0 if level == 0 else low))
    return of_components.sum()


def test_a_mixture_sums_to_one_over_all_levels_of_one_channel() -> None:
    for scale, dtype, tolerance in [(1.0, torch.float64, 1e-10), (1e8, torch.float32, 1e-4)]:
        likelihood = DiscretizedLogisticMixtureLikelihood((1,), components=3)
        p = likelihood(scale * torch.randn(likelihood.raw_shape, dtype=dtype))
        assert abs(p.log_prob(GRID.to(dtype)).exp().sum().item() - 1) < tolerance
        torch.testing.assert_close(
            p.mean[0], (p.log_prob(GRID.to(dtype)).exp() * GRID[:, 0].to(dtype)).sum()
        )


def test_a_mixture_in_colour_is_the_sum_over_components_and_sums_to_one() -> None:
    likelihood = DiscretizedLogisticMixtureLikelihood((3,), components=2, levels=4)
    raw = torch.randn(likelihood.raw_shape, dtype=torch.float64)
    colours = list(product(range(4), repeat=3))
    x = torch.tensor(colours, dtype=torch.float64) / 3
    expected = torch.stack([colour_probability(raw, colour) for colour in colours])
    found = likelihood(raw).log_prob(x).exp()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum().item(), 1.0)
    draws = (likelihood(raw).sample((40_000,)) * 3).round().long() @ torch.tensor([16, 4, 1])
    frequency = draws.bincount(minlength=64) / 40_000
    assert ((frequency - found).abs() <= 5 * (found * (1 - found) / 40_000).sqrt() + 1e-4).all()


def test_the_mean_of_a_mixture_in_colour_is_exact_away_from_the_ends() -> None:
    likelihood = DiscretizedLogisticMixtureLikelihood((3, 1, 2), components=4)
    raw = 0.1 * torch.randn(5, *likelihood.raw_shape)
    raw[:, 16:28] -= 5.0  # the scales
    p = likelihood(raw)
    x = p.sample((5000,))
    assert ((x.mean(0) - p.mean).abs() <= 5 * x.std(0) / 5000**0.5).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_likelihood_of_a_pixel_is_that_of_the_image_there(name: str) -> None:
    likelihood = LIKELIHOODS[name](SHAPE)
    raw, x = torch.randn(5, *likelihood.raw_shape), valid(name, 5)
    pixel = likelihood.at_pixel()
    pixels = [
        pixel(raw[:, :, i, j]).log_prob(x[:, :, i, j]) for i, j in product(range(3), range(4))
    ]
    torch.testing.assert_close(torch.stack(pixels).sum(0), likelihood(raw).log_prob(x))
    assert list(map(id, pixel.parameters())) == list(map(id, likelihood.parameters()))
    assert (pixel.shape, likelihood.shape) == (SHAPE[:1], SHAPE)


# 0.2499 and 0.2501 lie on the two sides of the change from series to closed form.
LOGITS = [0.0, 1e-4, -1e-4, 0.01, 0.2499, 0.2501, -0.2501, 3.0, 20.0, -20.0, 100.0, -100.0]


@pytest.mark.parametrize("logit", LOGITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_continuous_bernoulli_integrates_to_one(logit: float, dtype: torch.dtype) -> None:
    nodes, weights = gauss_legendre(0, 1)
    p = ContinuousBernoulliLikelihood((1,))(torch.tensor([logit], dtype=dtype))
    density = p.log_prob(nodes[:, None].to(dtype)).double().exp()
    tolerance = 1e-5 if dtype == torch.float32 else 1e-6
    assert abs((weights * density).sum().item() - 1) < tolerance
    assert abs((weights * density * nodes).sum().item() - p.mean.item()) < tolerance


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_gradient_is_value_minus_mean(logit: float) -> None:
    # An exponential family: d log p(x) / dl = x - E[x].
    for dtype, tolerance in [(torch.float32, 1e-6), (torch.float64, 1e-8)]:
        raw = torch.tensor([logit], dtype=dtype, requires_grad=True)
        p = ContinuousBernoulliLikelihood((1,))(raw)
        (slope,) = torch.autograd.grad(p.log_prob(torch.tensor([0.3], dtype=dtype)), raw)
        assert abs((slope - (0.3 - p.mean)).item()) < tolerance


@pytest.mark.parametrize("logit", [-4.0, 0.3, 2.0])
def test_continuous_bernoulli_is_torchs_in_double_precision(logit: float) -> None:
    raw = torch.tensor([logit], dtype=torch.float64)
    nodes, _ = gauss_legendre(0, 1)
    torchs = torch.distributions.ContinuousBernoulli(logits=raw)
    p = ContinuousBernoulliLikelihood((1,))(raw)
    torch.testing.assert_close(p.log_prob(nodes[:, None]), torchs.log_prob(nodes))
    torch.testing.assert_close(p.mean, torchs.mean)


def gaussians() -> Iterator[tuple[AbstractLikelihood, Tensor, Tensor]]:
    """A likelihood of each kind, raw values, and the scale that they should give."""
    raw = torch.randn(4, *SHAPE)
    yield GaussianLikelihood(SHAPE, variance=0.09), raw, torch.tensor(0.3)
    learned = GaussianLearnedVarianceLikelihood(SHAPE)
    learned.raw_scale.data.fill_(-1.0)
    yield learned, raw, torch.tensor(1e-3 + log(1 + 2.718281828459045**-1))
    raw_scale = torch.randn(4, *SHAPE)
    both = torch.cat([raw, raw_scale], dim=1)
    yield GaussianPixelVarianceLikelihood(SHAPE), both, 1e-3 + (1 + raw_scale.exp()).log()


def test_gaussians_are_torchs_normal() -> None:
    x = torch.randn(4, *SHAPE)
    for likelihood, raw, scale in gaussians():
        p = likelihood(raw)
        normal = torch.distributions.Normal(raw[:, : SHAPE[0]], scale)
        torch.testing.assert_close(p.log_prob(x), normal.log_prob(x).sum((1, 2, 3)))
        torch.testing.assert_close(p.mean, raw[:, : SHAPE[0]])


@pytest.mark.parametrize("name", CONTINUOUS)
def test_gaussians_integrate_to_one(name: str) -> None:
    likelihood = LIKELIHOODS[name]((1,)).double()
    nodes, weights = gauss_legendre(-12, 12)
    p = likelihood(torch.full(likelihood.raw_shape, 0.4, dtype=torch.float64))
    density = p.log_prob(nodes[:, None]).exp()
    torch.testing.assert_close((weights * density).sum().item(), 1.0)
    torch.testing.assert_close((weights * density * nodes).sum().item(), p.mean.item())


@pytest.mark.parametrize("name", ["laplace", "laplace-learned"])
def test_laplace_is_its_formula_and_integrates_to_one(name: str) -> None:
    likelihood = LIKELIHOODS[name]((1,)).double()
    scale, centre = float(torch.as_tensor(likelihood.scale).detach()), 0.4
    assert scale == pytest.approx(0.125 if name == "laplace" else 1.0)
    p = likelihood(torch.full((1,), centre, dtype=torch.float64))
    total = 0.0
    for low, high in ((centre - 30 * scale, centre), (centre, centre + 30 * scale)):
        nodes, weights = gauss_legendre(low, high)
        density = p.log_prob(nodes[:, None]).exp().detach()
        expected = (-(nodes - centre).abs() / scale).exp() / (2 * scale)
        torch.testing.assert_close(density, expected, rtol=1e-6, atol=0)
        total += float((weights * density).sum())
    assert total == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("weight", [1.0, 10.0, 100.0])
def test_gaussian_from_weight_weighs_squared_errors(weight: float) -> None:
    raw, x = torch.randn(2, 6, *SHAPE, dtype=torch.float64)
    likelihood = GaussianLikelihood.from_weight(SHAPE, weight)
    squared_errors = (x - raw).square().sum((1, 2, 3))
    constant = -likelihood(raw).log_prob(x) - weight * squared_errors
    torch.testing.assert_close(constant, torch.full_like(constant, 12 * log(pi / weight)))


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        (GaussianLearnedVarianceLikelihood, lambda errors: errors.square().mean().sqrt()),
        (LaplaceLearnedScaleLikelihood, lambda errors: errors.abs().mean()),
    ],
)
def test_the_learned_scale_learns_the_residuals_size(
    kind: type[AbstractLikelihood], size: Callable[[Tensor], Tensor]
) -> None:
    likelihood: Any = kind((50,)).double()
    residuals = 0.05 * torch.randn(200, 50, dtype=torch.float64)
    torch.testing.assert_close(likelihood.scale.item(), 1.0)
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        (-likelihood(torch.zeros_like(residuals)).log_prob(residuals).mean()).backward()
        optimizer.step()
    torch.testing.assert_close(likelihood.scale, size(residuals), rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", ["gaussian-learned", "gaussian-pixel"])
def test_learned_scales_have_a_floor(name: str) -> None:
    likelihood = LIKELIHOODS[name]((1,))
    raw = torch.full(likelihood.raw_shape, -1e6)
    if isinstance(likelihood, GaussianLearnedVarianceLikelihood):
        likelihood.raw_scale.data.fill_(-1e6)
    p = likelihood(raw)
    expected = torch.tensor(-log(1e-3 * (2 * pi) ** 0.5))
    torch.testing.assert_close(p.log_prob(raw[:1]), expected)


@pytest.mark.parametrize("name", NAMES)
def test_samples_have_the_mean_and_are_valid_data(name: str) -> None:
    # One channel: with more, the mixture's mean is an approximation.
    likelihood, p = built(name, (1, 3, 4))
    p_x = p(2)
    x = p_x.sample((4000,))
    assert x.shape == (4000, 2, 1, 3, 4)
    assert p_x.log_prob(x).isfinite().all()
    spread = x.std(0) / 4000**0.5
    assert ((x.mean(0) - p_x.mean).abs() <= 5 * spread + 1e-3).all()
    assert likelihood.shape == (1, 3, 4)


@pytest.mark.parametrize("logit", [-30.0, -1.0, 0.0, 1e-4, 30.0])
def test_continuous_bernoulli_samples_follow_the_cdf(logit: float) -> None:
    x = ContinuousBernoulliLikelihood((1,))(torch.tensor([logit])).sample((20_000,)).double()
    assert (x >= 0).all()
    assert (x <= 1).all()
    nodes, weights = gauss_legendre(0, 1)
    p = ContinuousBernoulliLikelihood((1,))(torch.tensor([logit], dtype=torch.float64))
    for power in (1, 2):
        moment = (weights * p.log_prob(nodes[:, None]).exp() * nodes**power).sum()
        error = 5 * (x**power).std() / 20_000**0.5
        assert abs((x**power).mean() - moment) < error


@pytest.mark.parametrize("raw", LOGISTIC)
def test_logistic_samples_follow_the_probabilities(raw: tuple[float, float]) -> None:
    p = DiscretizedLogisticLikelihood((1,))(torch.tensor(raw, dtype=torch.float64))
    levels = (p.sample((50_000,)) * 255).round().long()[:, 0]
    frequency = levels.bincount(minlength=256) / 50_000
    probability = p.log_prob(GRID).exp()
    error = 6 * (probability * (1 - probability) / 50_000).sqrt()
    assert ((frequency - probability).abs() <= error + 1e-4).all()


@pytest.mark.parametrize("batch", [(), (5,), (3, 5)])
@pytest.mark.parametrize("name", NAMES)
def test_shapes(name: str, batch: tuple[int, ...]) -> None:
    likelihood, p = built(name)
    # For each of 10 components of a mixture: 1 logit, 2 means, 2 scales, 1 coefficient.
    more = {"categorical": 20, "gaussian-pixel": 4, "logistic": 4, "logistic-mixture": 60}
    channels = more.get(name, 2)
    assert likelihood.raw_shape == (channels, 3, 4)
    p_x = p(*batch)
    assert p_x.batch_shape == batch
    assert p_x.event_shape == p_x.mean.shape[len(batch) :] == SHAPE
    assert p_x.log_prob(valid(name, *batch)).shape == batch
    # A batch of data against particles: only leading dimensions broadcast.
    assert p_x.log_prob(valid(name, 2, *[1 for _ in batch])).shape == (2, *batch)


@pytest.mark.parametrize("name", NAMES)
def test_vectors(name: str) -> None:
    likelihood = LIKELIHOODS[name]((7,))
    p = likelihood(torch.randn(3, *likelihood.raw_shape))
    assert p.log_prob(valid(name, 3, shape=(7,))).shape == (3,)


@pytest.mark.parametrize("name", NAMES)
def test_expanding_repeats_the_density_and_keeps_the_checks(name: str) -> None:
    _, p = built(name)
    p_x = p(5)
    wide = p_x.expand(torch.Size((3, 5)))
    x = valid(name, 5)
    assert wide.batch_shape == (3, 5)
    assert wide.sample().shape == (3, 5, *SHAPE)
    torch.testing.assert_close(wide.log_prob(x), p_x.log_prob(x).expand(3, 5))
    torch.testing.assert_close(wide.mean, p_x.mean.expand(3, 5, *SHAPE))
    with pytest.raises(ValueError, match="NaN or infinity in 120 of 120"):
        wide.log_prob(x * float("nan"))
    with pytest.raises(ValueError, match="expected data of shape"):
        wide.log_prob(x[:, 0])


@pytest.mark.parametrize("name", NAMES)
def test_in_a_plate_with_particles(name: str) -> None:
    likelihood, _ = built(name)
    raw = torch.randn(*likelihood.raw_shape)
    x = valid(name, 5)

    def model(x: Tensor | None) -> None:
        with pyro.plate("particles", 3, dim=-2), pyro.plate("data", 5):
            pyro.sample("x", likelihood(raw), obs=x)

    site = pyro.poutine.trace(model).get_trace(x)
    site.compute_log_prob()
    expected = likelihood(raw).log_prob(x).expand(3, 5)
    torch.testing.assert_close(site.nodes["x"]["log_prob"], expected)
    drawn = pyro.poutine.trace(model).get_trace(None)
    assert drawn.nodes["x"]["value"].shape == (3, 5, *SHAPE)
    assert drawn.log_prob_sum().isfinite()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1e2, 1e4, 1e8])
def test_gradients_are_finite_at_extreme_raw_values(name: str, size: float) -> None:
    likelihood = LIKELIHOODS[name](SHAPE)
    for sign in (-1, 1):
        raw = (sign * size * torch.ones(3, *likelihood.raw_shape)).requires_grad_()
        p = likelihood(raw)
        log_p = p.log_prob(valid(name, 3))
        assert log_p.isfinite().all()
        (log_p.sum() + p.mean.sum()).backward()
        assert raw.grad is not None
        assert raw.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_data_must_be_finite(name: str, bad: float) -> None:
    _, p = built(name)
    x = valid(name, 5)
    x[2, 1, 0, 3] = bad
    with pytest.raises(ValueError, match=r"likelihood takes .*NaN or infinity in 1 of 120.*drop"):
        p(5).log_prob(x)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "bernoulli",
            0.53,
            r"takes pixels 0 or 1, got 0\.53 among values in \[0, 1\]; binarise the data "
            r"\(preprocessing 'binary-static' or 'binary-dynamic'\) or use the continuous",
        ),
        ("bernoulli", 255.0, r"got 255 among values in \[0, 255\]"),
        ("continuous-bernoulli", -0.1, r"takes pixels in \[0, 1\], got -0\.1 .*; scale the data"),
        ("continuous-bernoulli", 1.01, r"takes pixels in \[0, 1\], got 1\.01 .*; scale the data"),
        ("logistic", 0.5, r"on the grid 0, 1/255, \.\.\., 1, got 0\.5 .*; divide 8-bit data"),
        ("logistic", 256 / 255, r"on the grid 0, 1/255, \.\.\., 1, got 1\.00392 .*; divide"),
        ("logistic", -1 / 255, r"on the grid 0, 1/255, \.\.\., 1, got -0\.00392"),
        ("logistic", 1.01 / 255, r"on the grid .*, got 0\.0039"),
        (
            "poisson",
            2.5,
            r"Poisson likelihood takes counts 0, 1, 2, \.\.\., got 2\.5 .*; pass the",
        ),
        ("poisson", -1.0, r"takes counts .*, got -1 among values in \[-1, 9\]; pass the counts"),
        ("negative-binomial", 0.1, r"negative binomial likelihood takes counts .*, got 0\.1 "),
        ("negative-binomial", -3.0, r"takes counts 0, 1, 2, \.\.\., got -3 .*; pass the counts"),
        (
            "categorical",
            10.0,
            r"takes codes 0, 1, \.\.\., 9 of 10 categories, got 10 .*; number the",
        ),
        ("categorical", 0.5, r"takes codes .*, got 0\.5 .*; number the categories from 0"),
        ("categorical", -1.0, r"takes codes .*, got -1"),
    ],
)
def test_data_must_lie_in_the_support(name: str, value: float, message: str) -> None:
    _, p = built(name)
    x = valid(name, 5)
    x[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    x[1, 1, 0, 2] = value
    with pytest.raises(ValueError, match=message):
        p(5).log_prob(x)
    pyro.enable_validation(False)
    assert p(5).log_prob(x).shape == (5,)


def test_all_levels_are_on_the_grid_in_single_precision() -> None:
    p = DiscretizedLogisticLikelihood((1,))(torch.tensor([0.5, 0.0]))
    assert p.log_prob(torch.arange(256)[:, None].float() / 255).isfinite().all()
    assert p.log_prob(torch.arange(256)[:, None].float() * (1 / 255)).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("validation", [True, False])
def test_data_of_another_shape_never_broadcast(name: str, validation: bool) -> None:
    pyro.enable_validation(validation)
    likelihood = LIKELIHOODS[name]((1, 4, 4))
    p = likelihood(torch.zeros(3, *likelihood.raw_shape))
    message = r"expected data of shape \(\.\.\., 1, 4, 4\), got \(3, 4, 4\); reshape"
    for shape in [(3, 4, 4), (4, 4), (3, 1, 1, 4), (3, 1, 1, 1), ()]:
        with pytest.raises(ValueError, match="expected data of shape"):
            p.log_prob(torch.zeros(shape))
    with pytest.raises(ValueError, match=message):
        p.log_prob(torch.zeros(3, 4, 4))


@pytest.mark.parametrize("name", NAMES)
def test_raw_values_of_another_shape_are_refused(name: str) -> None:
    likelihood = LIKELIHOODS[name](SHAPE)
    with pytest.raises(ValueError, match=r"expected raw values of shape .*, got \(5, 3, 3, 4\)"):
        likelihood(torch.zeros(5, 3, 3, 4))
    with pytest.raises(ValueError, match="shape must have at least one dimension"):
        LIKELIHOODS[name](())


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="variance must be positive and finite, got 0"):
        GaussianLikelihood((2,), variance=0.0)
    with pytest.raises(ValueError, match="weight must be positive and finite, got -1"):
        GaussianLikelihood.from_weight((2,), -1.0)
    with pytest.raises(ValueError, match="levels must be at least 2, got 1; use 256"):
        DiscretizedLogisticMixtureLikelihood((2,), levels=1)


def test_likelihoods_are_named() -> None:
    assert {
        "bernoulli": BernoulliLikelihood,
        "categorical": CategoricalLikelihood,
        "continuous-bernoulli": ContinuousBernoulliLikelihood,
        "gaussian": GaussianLikelihood,
        "gaussian-learned": GaussianLearnedVarianceLikelihood,
        "gaussian-pixel": GaussianPixelVarianceLikelihood,
        "laplace": LaplaceLikelihood,
        "laplace-learned": LaplaceLearnedScaleLikelihood,
        "logistic": DiscretizedLogisticLikelihood,
        "logistic-mixture": DiscretizedLogisticMixtureLikelihood,
        "mixed": MixedLikelihood,
        "negative-binomial": NegativeBinomialLikelihood,
        "poisson": PoissonLikelihood,
    } == LIKELIHOODS
    assert all(isinstance(built(name)[1](2), dist.Independent) for name in NAMES)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("bernoulli", (0.0, 1.0)),
        ("continuous-bernoulli", (0.0, 0.3, 1.0)),
        ("gaussian", (-1.0, 0.5)),
        ("gaussian-learned", (-1.0, 0.5)),
        ("negative-binomial", (0.0, 3.0, 70.0)),
        ("poisson", (0.0, 3.0, 70.0)),
    ],
)
def test_the_expansion_is_the_first_two_derivatives(name: str, data: tuple[float, ...]) -> None:
    likelihood = LIKELIHOODS[name]((1,)).double()
    for value in data:
        raw = torch.linspace(-12, 12, 97, dtype=torch.float64).unsqueeze(-1).requires_grad_()
        x = torch.full_like(raw, value)
        (slope,) = torch.autograd.grad(likelihood(raw).log_prob(x).sum(), raw, create_graph=True)
        (second,) = torch.autograd.grad(slope.sum(), raw)
        found = likelihood.expansion(x, raw)
        torch.testing.assert_close(found[0], slope, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(found[1].expand_as(raw), -second, rtol=1e-6, atol=1e-8)
