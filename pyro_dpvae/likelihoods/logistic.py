"""The discretised logistic likelihood, for pixels of 256 grey levels."""

from collections.abc import Sequence
from typing import Any, ClassVar, final

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import constraints

from pyro_dpvae.likelihoods._base import AbstractLikelihood

__all__ = ["DiscretizedLogistic"]

_TOP = 255
# Within it a bin's width stays between 1e-7 and 1e2 scales, which float32 resolves.
_LOG_SCALE_RANGE = (-10.0, 10.0)


@final
class DiscretizedLogistic(AbstractLikelihood):
    """Pixels on the grid {0, 1/255, ..., 1}, each the rounding of a logistic variable.

    With b, a = (x +- 1/510 - mean) / scale,

        log p(x) = sum log(sigmoid(b) - sigmoid(a))
                 = sum b + log(1 - exp(a - b)) - softplus(a) - softplus(b),

    but the bins of 0 and 1 are open to the outside: log sigmoid(b) and log sigmoid(-a). The
    first half of the raw channels is the mean, the second the log of the scale, which is cut to
    [-10, 10].

    Args:
        shape: of a datum, (C, H, W) or (D,).

    References:
        Kingma et al. (2016), Improving Variational Inference with Inverse Autoregressive Flow,
        appendix. Salimans, Karpathy, Chen, Kingma (2017), PixelCNN++, section 2.1.

    Example:
        >>> likelihood = DiscretizedLogistic((1,))
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

    def pixels(self, raw: Float[Tensor, "..."]) -> TorchDistributionMixin:
        """Return the discretised logistic distributions of the pixels."""
        mean, log_scale = self.split(raw)
        return _DiscretizedLogistic(mean, log_scale.clamp(*_LOG_SCALE_RANGE).exp())


@final
class _Grid(constraints.Constraint):
    """The levels k / 255, within a thousandth of a level for the rounding of floats."""

    is_discrete = True

    def check(self, value: Float[Tensor, "..."]) -> Bool[Tensor, "..."]:
        levels = value * _TOP
        nearest = levels.round().clamp(0, _TOP)
        return (levels - nearest).abs() <= 1e-3


@final
class _DiscretizedLogistic(dist.TorchDistribution):
    """The rounding of mean + scale * logistic to the grid."""

    arg_constraints = {  # noqa: RUF012 -- torch's protocol
        "loc": constraints.real,
        "scale": constraints.positive,
    }
    support = _Grid()

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        self.loc = loc
        self.scale = scale
        super().__init__(loc.shape)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "_DiscretizedLogistic":
        new = self._get_checked_instance(_DiscretizedLogistic, _instance)
        new.loc = self.loc.expand(batch_shape)
        new.scale = self.scale.expand(batch_shape)
        super(_DiscretizedLogistic, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        level = (value * _TOP).round()
        log_below_upper = F.logsigmoid(((level + 0.5) / _TOP - self.loc) / self.scale)
        log_above_lower = F.logsigmoid((self.loc - (level - 0.5) / _TOP) / self.scale)
        # log(1 - exp(a - b)); the width b - a is known without a difference that would cancel.
        log_width = torch.log(-torch.expm1(-1 / (_TOP * self.scale)))
        inner = log_below_upper + log_above_lower + log_width
        inner = torch.where(level <= 0, log_below_upper, inner)
        return torch.where(level >= _TOP, log_above_lower, inner)

    @property
    def mean(self) -> Tensor:
        # E[level] = sum_k P(level >= k); a loop, for 255 copies of a batch are too large.
        total = torch.zeros_like(self.loc)
        for level in range(1, _TOP + 1):
            total = total + torch.sigmoid((self.loc - (level - 0.5) / _TOP) / self.scale)
        return total / _TOP

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        uniform = torch.rand(
            self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device
        )
        level = ((self.loc + self.scale * uniform.logit()) * _TOP).round()
        return level.clamp(0, _TOP) / _TOP
