"""The discretised logistic likelihoods, of one logistic and of a mixture, and their levels."""

from collections.abc import Sequence
from typing import Any, ClassVar, final

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from jaxtyping import Bool
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import Categorical, constraints

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.distributions import expanded
from pyro_dpvae.likelihoods._base import AbstractLikelihood, Values

__all__ = [
    "LOG_SCALE_RANGE",
    "DiscretizedLogisticLikelihood",
    "DiscretizedLogisticMixtureLikelihood",
    "Grid",
    "draw_rounded",
    "log_mass",
    "rounded_mean",
]

LOG_SCALE_RANGE = (-10.0, 10.0)
"""Bounds of log scales: a bin is between 1e-7 and 1e5 scales wide, which float32 resolves."""


@final
class Grid(constraints.Constraint):
    """The levels k / top, with a tolerance of a thousandth of a level."""

    is_discrete = True

    def __init__(self, top: int) -> None:
        self.top = top
        super().__init__()

    def check(self, value: Values) -> Bool[Tensor, "..."]:
        """Return True for values on the grid."""
        levels = value * self.top
        nearest = levels.round().clamp(0, self.top)
        return (levels - nearest).abs() <= 1e-3


def log_mass(value: Values, loc: Values, scale: Values, top: int) -> Values:
    """Return log P(x) of values on the grid, with x the rounding of loc + scale * logistic.

    The bins of 0 and 1 extend to infinity.

    Args:
        value: values on the grid 0, 1 / top, ..., 1.
        loc: location, in the units of the values.
        scale: scale, in the units of the values.
        top: index of the last level.
    """
    level = (value * top).round()
    log_below_upper = F.logsigmoid(((level + 0.5) / top - loc) / scale)
    log_above_lower = F.logsigmoid((loc - (level - 0.5) / top) / scale)
    # log(1 - exp(a - b)); the width b - a is known exactly, without cancellation.
    log_width = torch.log(-torch.expm1(-1 / (top * scale)))
    inner = log_below_upper + log_above_lower + log_width
    inner = torch.where(level <= 0, log_below_upper, inner)
    return torch.where(level >= top, log_above_lower, inner)


def rounded_mean(loc: Tensor, scale: Tensor, top: int) -> Tensor:
    """Return the mean of the rounding of loc + scale * logistic to the grid."""
    # E[level] = sum_k P(level >= k), as a loop, since all levels of a batch at once are too large.
    total = torch.zeros_like(loc)
    for level in range(1, top + 1):
        total = total + torch.sigmoid((loc - (level - 0.5) / top) / scale)
    return total / top


def draw_rounded(loc: Tensor, scale: Tensor, top: int) -> Tensor:
    """Return a sample of loc + scale * logistic, rounded to the grid."""
    level = ((loc + scale * torch.rand_like(loc).logit()) * top).round()
    return level.clamp(0, top) / top


_TOP = 255


@final
class DiscretizedLogisticLikelihood(AbstractLikelihood):
    """Pixels on the grid {0, 1/255, ..., 1}, each the rounding of a logistic variable.

    With b, a = (x +- 1/510 - mean) / scale,

        log p(x) = sum log(sigmoid(b) - sigmoid(a))
                 = sum b + log(1 - exp(a - b)) - softplus(a) - softplus(b),

    except that the bins of 0 and 1 extend to infinity: log sigmoid(b) and log sigmoid(-a). The
    first half of the raw channels is the mean, the second the log of the scale, which is clamped
    to [-10, 10].

    Args:
        shape: shape of an item, (C, H, W) or (D,).

    References:
        Kingma et al. (2016), Improving Variational Inference with Inverse Autoregressive Flow,
        appendix. Salimans, Karpathy, Chen, Kingma (2017), PixelCNN++, section 2.1.

    Example:
        >>> likelihood = DiscretizedLogisticLikelihood((1,))
        >>> p = likelihood(torch.tensor([0.4, -3.0]))
        >>> grid = torch.arange(256.0)[:, None] / 255
        >>> bool(torch.isclose(p.log_prob(grid).exp().sum(), torch.tensor(1.0)))
        True
    """

    values_per_pixel: ClassVar[int] = 2
    rule = "a discretised logistic likelihood takes pixels on the grid 0, 1/255, ..., 1"
    remedy = (
        "divide 8-bit data by 255 without noise, resizing or standardisation after it, or use "
        "the continuous Bernoulli or a Gaussian likelihood"
    )

    def pixels(self, raw: Values) -> TorchDistributionMixin:
        """Return the discretised logistic distributions of the pixels."""
        mean, log_scale = self.split(raw)
        return _DiscretizedLogistic(mean, log_scale.clamp(*LOG_SCALE_RANGE).exp())


@final
class _DiscretizedLogistic(dist.TorchDistribution):
    """The rounding of mean + scale * logistic to the grid."""

    arg_constraints = {  # noqa: RUF012 -- torch's protocol
        "loc": constraints.real,
        "scale": constraints.positive,
    }
    support = Grid(_TOP)

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        self.loc = loc
        self.scale = scale
        super().__init__(loc.shape)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "_DiscretizedLogistic":
        return expanded(self, batch_shape, _instance, names=("loc", "scale"))

    def log_prob(self, value: Tensor) -> Tensor:
        return log_mass(value, self.loc, self.scale, _TOP)

    @property
    def mean(self) -> Tensor:
        return rounded_mean(self.loc, self.scale, _TOP)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        return draw_rounded(self.loc.expand(shape), self.scale, _TOP)


@final
class DiscretizedLogisticMixtureLikelihood(AbstractLikelihood):
    """Pixels on the grid {0, ..., 1} of some levels, each a rounded sample of a logistic mixture.

    The channels of a pixel share the component k, and are predicted one after another. With
    y = 2 x - 1 and log P the log mass of a bin as in :class:`DiscretizedLogisticLikelihood`,

        log p(x) = sum over pixels of  log sum_k pi_k prod_c P(x_c; mean_kc, scale_kc),
        mean_kc  = m_kc + sum_{d < c} a_kcd y_d.

    At each pixel the raw channels are, in this order: K logits of pi; K values m for each channel;
    K log scales for each channel, which are clamped to [-10, 10]; and K numbers whose tanh is a,
    for each pair (c, d), in the order (1, 0), (2, 0), (2, 1), ...  Means and scales are in the
    units of y. So there are 10 K raw channels for three channels and 3 K for one.

    The ``mean`` of the distribution is exact for one channel. With more, it is the exact mean of
    each channel given earlier channels at their means, within each component. This is nearly exact
    unless much of the mass lies at the ends of the grid.

    Args:
        shape: shape of an item, (C, H, W), or (C,) for a single pixel.
        components: number K of logistics.
        levels: number of levels of a channel; 256 for 8-bit data divided by 255.

    Raises:
        ValueError: if there is no component or only one level.

    References:
        Salimans, Karpathy, Chen, Kingma (2017), PixelCNN++, sections 2.1 and 2.2. The tanh is from
        the published code; the order of the raw values, the lower bound of the scale and the mean
        are ours.

    Example:
        >>> likelihood = DiscretizedLogisticMixtureLikelihood((3, 32, 32), components=5)
        >>> likelihood.raw_shape
        (50, 32, 32)
        >>> likelihood(torch.randn(4, 50, 32, 32)).sample().shape
        torch.Size([4, 3, 32, 32])
    """

    rule = "a logistic mixture likelihood takes pixels on the grid 0, 1/(levels - 1), ..., 1"
    remedy = (
        "divide 8-bit data by 255 without noise, resizing or standardisation after it, and keep "
        "levels=256 for them, or use the continuous Bernoulli or a Gaussian likelihood"
    )

    def __init__(self, shape: Sequence[int], *, components: int = 10, levels: int = 256) -> None:
        super().__init__(shape)
        self.components = check_positive_int("components", components)
        if check_positive_int("levels", levels) < 2:
            raise ValueError(f"levels must be at least 2, got {levels}; use 256 for 8-bit data")
        self.levels = levels

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """The shape of an item's raw values: ``shape`` with more channels."""
        return (self.components * sum(self._counts()), *self.shape[1:])

    def pixels(self, raw: Values) -> TorchDistributionMixin:
        """Return the distribution of an item; pixels are independent, channels are not."""
        parts = raw.movedim(-len(self.shape), -1).unflatten(-1, (-1, self.components))
        logits, means, log_scales, coefficients = parts.split(self._counts(), -2)
        scales = log_scales.clamp(*LOG_SCALE_RANGE).exp()
        return _Mixture(
            (logits.squeeze(-2), means, scales, coefficients.tanh()), self.shape, self.levels - 1
        )

    def _counts(self) -> list[int]:
        channels = self.shape[0]
        return [1, channels, channels, channels * (channels - 1) // 2]


@final
class _Mixture(dist.TorchDistribution):
    """The mixture over an item; its parameters have the channel in the second-to-last dimension.

    Args:
        parameters: logits, of shape (*batch, *space, K), and means, scales and coefficients, of
            shape (*batch, *space, channels or pairs, K).
        shape: shape of an item, (channels, *space).
        top: index of the last level.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, parameters: tuple[Tensor, ...], shape: tuple[int, ...], top: int) -> None:
        self.logits, self.means, self.scales, self.coefficients = parameters
        self.top = top
        batch = self.logits.shape[: self.logits.ndim - len(shape)]
        super().__init__(batch, torch.Size(shape))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "_Mixture":
        names = ("logits", "means", "scales", "coefficients")
        return expanded(self, batch_shape, _instance, names=names)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(Grid(self.top), len(self.event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        value = value.movedim(-len(self.event_shape), -1).unsqueeze(-1)
        of_components = self.logits.log_softmax(-1)
        for channel in range(self.event_shape[0]):
            loc, scale = self._given(channel, value)
            of_components = of_components + log_mass(value[..., channel, :], loc, scale, self.top)
        of_pixels = of_components.logsumexp(-1)
        space = tuple(range(1 - len(self.event_shape), 0))
        return of_pixels.sum(space) if space else of_pixels

    @property
    def mean(self) -> Tensor:
        found = torch.zeros_like(self.means)
        for channel in range(self.event_shape[0]):
            one = rounded_mean(*self._given(channel, found), self.top)
            found = torch.cat([found[..., :channel, :], one.unsqueeze(-2)], -2)
        mean = (found * self.logits.softmax(-1).unsqueeze(-2)).sum(-1)
        return mean.movedim(-1, -len(self.event_shape))

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        batch = self._extended_shape(sample_shape)[: -len(self.event_shape)]
        whole = self.expand(batch)
        component = Categorical(logits=whole.logits, validate_args=False).sample()
        chosen = whole._only(component)
        found = torch.zeros_like(chosen.means)
        for channel in range(self.event_shape[0]):
            found[..., channel, :] = draw_rounded(*chosen._given(channel, found), self.top)
        return found.squeeze(-1).movedim(-1, -len(self.event_shape))

    def _given(self, channel: int, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and scale of a channel, in the units of x, given the channels before."""
        first = channel * (channel - 1) // 2
        coefficients = self.coefficients[..., first : first + channel, :]
        before = 2 * value[..., :channel, :] - 1
        loc = self.means[..., channel, :] + (coefficients * before).sum(-2)
        return (loc + 1) / 2, self.scales[..., channel, :] / 2

    def _only(self, component: Tensor) -> "_Mixture":
        """Return the mixture with one component for each pixel."""
        index = component.unsqueeze(-1)

        def of(part: Tensor) -> Tensor:
            return part.gather(-1, index.unsqueeze(-1).expand(*part.shape[:-1], 1))

        parts = (self.means, self.scales, self.coefficients)
        logits = self.logits.gather(-1, index)
        return _Mixture((logits, *map(of, parts)), tuple(self.event_shape), self.top)
