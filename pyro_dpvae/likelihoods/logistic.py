"""The discretised logistic likelihood for 256 grey levels, and variables rounded to levels."""

from collections.abc import Sequence
from typing import Any, ClassVar, final

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from jaxtyping import Bool
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import constraints

from pyro_dpvae.distributions import expanded
from pyro_dpvae.likelihoods._base import AbstractLikelihood, Values

__all__ = [
    "LOG_SCALE_RANGE",
    "DiscretizedLogisticLikelihood",
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
