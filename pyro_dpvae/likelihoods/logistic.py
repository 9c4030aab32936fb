"""The discretised logistic likelihood: exact probabilities of 8-bit pixels."""

from collections.abc import Sequence
from typing import Self, final

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import softplus

from pyro_dpvae.likelihoods._base import AbstractLikelihood, check_finite, describe

__all__ = ["DiscretizedLogistic"]

_TOP = 255
# A scale of e^-7 is a quarter of a grey level: all mass in one bin. Beyond e^7 it is uniform.
_LOG_SCALES = 7.0


@final
class DiscretizedLogistic(AbstractLikelihood):
    """P(x | mu, s) = prod_i [F((x_i + 1/510 - mu_i)/s_i) - F((x_i - 1/510 - mu_i)/s_i)].

    F is the logistic function; pixels lie on the 256 levels 0, 1/255, ..., 1, and the outer bins
    are open, so the probabilities of the levels sum to 1.

    Args:
        shape: of a datum.

    References:
        Kingma et al. (2016), Improving Variational Inference with Inverse Autoregressive Flow,
        appendix. Salimans, Karpathy, Chen, Kingma (2017), PixelCNN++, section 2.1.

    Example:
        >>> DiscretizedLogistic((3, 32, 32)).raw_shape
        (6, 32, 32)
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape, values=2)

    def forward(self, raw: Float[Tensor, "..."]) -> dist.Independent:
        """Return P(x | raw); raw holds means, then log-scales, both about the middle level.

        A raw 0 stands for the mean 1/2 and the scale e^-2, between black and white.
        """
        mean, log_scale = self._split(raw)
        log_scale = (log_scale - 2).clamp(-_LOG_SCALES, _LOG_SCALES)
        return self._whole(_DiscretizedLogistic(mean + 0.5, log_scale), _check_levels)


class _DiscretizedLogistic(dist.TorchDistribution):
    """The probabilities of the levels of one pixel."""

    arg_constraints = {"loc": constraints.real, "log_scale": constraints.real}  # noqa: RUF012
    support = constraints.unit_interval
    has_rsample = False

    def __init__(self, loc: Tensor, log_scale: Tensor) -> None:
        self.loc, self.log_scale = loc, log_scale
        super().__init__(loc.shape, validate_args=False)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> Self:
        new = self._get_checked_instance(_DiscretizedLogistic, _instance)
        new.loc = self.loc.expand(torch.Size(batch_shape))
        new.log_scale = self.log_scale.expand(torch.Size(batch_shape))
        super(_DiscretizedLogistic, new).__init__(torch.Size(batch_shape), validate_args=False)
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        # log(F(b) - F(a)) = b + log(1 - e^(a-b)) - softplus(a) - softplus(b), nowhere a
        # difference of nearly equal numbers; a - b is the width of a bin.
        rate = torch.exp(-self.log_scale)
        upper = (value + 0.5 / _TOP - self.loc) * rate
        lower = (value - 0.5 / _TOP - self.loc) * rate
        inner = upper + torch.log(-torch.expm1(-rate / _TOP)) - softplus(lower) - softplus(upper)
        inner = torch.where(value > 1 - 0.5 / _TOP, -softplus(lower), inner)
        return torch.where(value < 0.5 / _TOP, -softplus(-upper), inner)

    @property
    def mean(self) -> Tensor:
        # The mean of a variable on 0..255 is the sum of its tail probabilities.
        rate = torch.exp(-self.log_scale)
        total = torch.zeros_like(self.loc)
        for level in range(_TOP):
            total = total + torch.sigmoid((self.loc - (level + 0.5) / _TOP) * rate)
        return total / _TOP

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = torch.Size()) -> Tensor:
        with torch.no_grad():
            shape = torch.Size(sample_shape) + self.batch_shape
            u = torch.rand(shape).to(self.loc).clamp(1e-7, 1 - 1e-7)
            x = self.loc + torch.exp(self.log_scale) * (u.log() - torch.log1p(-u))
            return (x * _TOP).round().clamp(0, _TOP) / _TOP


def _check_levels(value: Tensor) -> None:
    check_finite("a discretised logistic likelihood", value)
    levels = value * _TOP
    off = ((levels - levels.round()).abs() > 1e-3) | (value < 0) | (value > 1)
    if off.any():
        raise ValueError(
            f"a discretised logistic likelihood takes the 256 levels 0, 1/255, ..., 1, got "
            f"{int(off.sum())} of {value.numel()} pixels off them, {describe(value)}; use "
            "preprocessing 'grey' on 8-bit images, or likelihood 'gaussian-learned'"
        )
