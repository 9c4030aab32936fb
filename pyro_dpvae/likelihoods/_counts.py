"""Distributions of counts by the logarithm of their mean, precise in float32."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, final

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints

from pyro_dpvae.distributions import expanded

__all__ = ["LOG_MEAN_RANGE", "Counts"]

LOG_MEAN_RANGE = (-30.0, 30.0)
"""Log means are clamped to it, so that densities and their gradients are finite in float32."""

_SERIES = 8.0  # from here on Stirling's series is precise in float64
_HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


@final
class Counts(dist.TorchDistribution):
    """The negative binomial of mean mu and variance mu + dispersion mu^2, or the Poisson.

    With r = 1 / dispersion and d = log mu - log x,

        log p(x) = x log(1 + (exp(d) - 1) r / (r + mu)) + r log(1 + (x - mu) / (r + mu))
                   - log(1 + x / r) / 2 - [log x! - x log x + x] + s(x + r) - s(r),

    where s(y) = log Gamma(y) - (y - 1/2) log y + y - log(2 pi) / 2 is the rest of Stirling's
    formula. No two of these terms are large and cancel, unlike log Gamma(x + r) - log Gamma(r).
    The Poisson distribution is the limit of dispersion 0.

    Args:
        log_mean: log mu.
        dispersion: of a shape that broadcasts with log_mean; None for the Poisson distribution.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.nonnegative_integer

    def __init__(self, log_mean: Tensor, dispersion: Tensor | None = None) -> None:
        self.log_mean = log_mean
        self.dispersion = None if dispersion is None else dispersion.expand_as(log_mean)
        super().__init__(log_mean.shape)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "Counts":
        """Return the same distribution for each element of ``batch_shape``."""
        names = ("log_mean",) if self.dispersion is None else ("log_mean", "dispersion")
        return expanded(self, batch_shape, _instance, names=names)

    @property
    def mean(self) -> Tensor:
        """The mean mu."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """The variance, mu + dispersion mu^2."""
        if self.dispersion is None:
            return self.mean
        return self.mean + self.dispersion * self.mean.square()

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(x), in nats."""
        mean, positive = self.mean, value > 0
        some = torch.where(positive, value, 1.0)
        distance = self.log_mean - some.log()
        excess = torch.where(positive, -some * distance.expm1(), -mean)  # x - mu
        if self.dispersion is None:
            found = torch.where(positive, some * distance - _log_factorial_rest(some), 0.0)
            return found + excess
        r = self.dispersion.reciprocal()
        apart = (value + r).log() - (r + mean).log()
        own = some * _log1p(distance.expm1() * (r / (r + mean)), distance + apart)
        found = torch.where(positive, own - _log_factorial_rest(some), 0.0)
        found = found + r * _log1p(excess / (r + mean), apart)
        return found - torch.log1p(value / r) / 2 + _stirling_rest(value + r) - _stirling_rest(r)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return counts, as floats, of shape (*sample_shape, *batch_shape)."""
        mean = self.mean.expand(self._extended_shape(torch.Size(sample_shape)))
        if self.dispersion is None:
            return torch.poisson(mean)
        shape = self.dispersion.reciprocal().expand_as(mean)
        return torch.poisson(mean * torch._standard_gamma(shape) / shape)


def _log1p(ratio: Float[Tensor, "..."], otherwise: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return log(1 + ratio), or ``otherwise``, its other form, where 1 + ratio loses digits."""
    near = ratio > -0.5
    return torch.where(near, torch.where(near, ratio, 0.0).log1p(), otherwise)


def _log_factorial_rest(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return log x! - x log x + x of positive x."""
    return _stirling_rest(x) + 0.5 * x.log() + _HALF_LOG_2_PI


def _stirling_rest(y: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return log Gamma(y) - (y - 1/2) log y + y - log(2 pi) / 2 of positive y."""
    large = y >= _SERIES
    inverse = torch.where(large, y, _SERIES).reciprocal()
    square = inverse.square()
    series = 1 / 1260 - square * (1 / 1680 - square * (1 / 1188 - square * 691 / 360360))
    series = inverse * (1 / 12 - square * (1 / 360 - square * series))
    small = torch.where(large, 1.0, y)
    exact = torch.lgamma(small) - (small - 0.5) * small.log() + small - _HALF_LOG_2_PI
    return torch.where(large, series, exact)
