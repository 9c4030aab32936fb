"""The likelihoods of counts: the Poisson, and the negative binomial, which varies more."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, final

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_dpvae.distributions import expanded
from pyro_dpvae.likelihoods._base import AbstractLikelihood, Values

__all__ = ["LOG_MEAN_RANGE", "Counts", "NegativeBinomialLikelihood", "PoissonLikelihood"]

LOG_MEAN_RANGE = (-30.0, 30.0)
"""Log means are clamped to it, so that densities and their gradients are finite in float32."""

_SERIES = 8.0  # from here on Stirling's series is precise in float64
_REMEDY = (
    "pass the counts themselves, not rates or logarithms of them, or use a Gaussian likelihood"
)
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


def _log1p(ratio: Values, otherwise: Values) -> Values:
    """Return log(1 + ratio), or ``otherwise``, its other form, where 1 + ratio loses digits."""
    near = ratio > -0.5
    return torch.where(near, torch.where(near, ratio, 0.0).log1p(), otherwise)


def _log_factorial_rest(x: Values) -> Values:
    """Return log x! - x log x + x of positive x."""
    return _stirling_rest(x) + 0.5 * x.log() + _HALF_LOG_2_PI


def _stirling_rest(y: Values) -> Values:
    """Return log Gamma(y) - (y - 1/2) log y + y - log(2 pi) / 2 of positive y."""
    large = y >= _SERIES
    inverse = torch.where(large, y, _SERIES).reciprocal()
    square = inverse.square()
    series = 1 / 1260 - square * (1 / 1680 - square * (1 / 1188 - square * 691 / 360360))
    series = inverse * (1 / 12 - square * (1 / 360 - square * series))
    small = torch.where(large, 1.0, y)
    exact = torch.lgamma(small) - (small - 0.5) * small.log() + small - _HALF_LOG_2_PI
    return torch.where(large, series, exact)


@final
class PoissonLikelihood(AbstractLikelihood):
    """Counts with variance equal to the mean: log p(x) = sum x l - exp(l) - log x!.

    The raw value l is the logarithm of the mean, clamped to [-30, 30].

    Args:
        shape: shape of an item, (C, H, W) or (D,).

    References:
        Zhao, Rai, Du, Buntine, Phung, Zhou (2020), Variational autoencoders for sparse and
        overdispersed discrete data: what a Poisson likelihood misses in overdispersed counts.

    Example:
        >>> import torch
        >>> p = PoissonLikelihood((2,))(torch.zeros(2))
        >>> p.log_prob(torch.tensor([0.0, 1.0]))  # exp(-1) twice
        tensor(-2.)
    """

    rule = "a Poisson likelihood takes counts 0, 1, 2, ..."
    remedy = _REMEDY

    def pixels(self, raw: Values) -> TorchDistributionMixin:
        """Return the Poisson distributions of the counts."""
        return Counts(raw.clamp(*LOG_MEAN_RANGE))

    def expansion(self, x: Values, raw: Values) -> tuple[Values, Values]:
        """Return x - mean and the mean."""
        mean = raw.clamp(*LOG_MEAN_RANGE).exp()
        return x - mean, mean


# For Poisson-distributed counts the best dispersion is 0: without a bound, its inverse would grow
# forever.
_LEAST_DISPERSION = 1e-6


@final
class NegativeBinomialLikelihood(AbstractLikelihood):
    """Counts with variance mean + dispersion mean^2, and a learned dispersion for each channel.

        p(x) = Gamma(x + r) / (Gamma(r) x!) (r / (r + mean))^r (mean / (r + mean))^x,
        r    = 1 / dispersion

    The raw value is the logarithm of the mean, clamped to [-30, 30]. The dispersion is 1e-6 +
    softplus(parameter), initially 0.69. Near 0 the counts are Poisson-distributed, and the
    dispersion stays there. The density is computed precisely in float32 for any dispersion.

    Args:
        shape: shape of an item, (C, H, W) or (D,); each channel of an image, or column of a
            vector, has its own dispersion.

    References:
        Lopez, Regier, Cole, Jordan, Yosef (2018), Deep generative modeling for single-cell
        transcriptomics: a learned inverse dispersion for each gene.

    Example:
        >>> p = NegativeBinomialLikelihood((2,))(torch.zeros(5, 2))
        >>> p.log_prob(torch.tensor([0.0, 3.0])).shape
        torch.Size([5])
    """

    rule = "a negative binomial likelihood takes counts 0, 1, 2, ..."
    remedy = _REMEDY

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        self.raw_dispersion = nn.Parameter(torch.zeros(self.shape[0]))

    @property
    def dispersion(self) -> Float[Tensor, " channels"]:
        """The dispersion of each channel."""
        return _LEAST_DISPERSION + F.softplus(self.raw_dispersion)

    def pixels(self, raw: Values) -> TorchDistributionMixin:
        """Return the negative binomial distributions of the counts."""
        return Counts(raw.clamp(*LOG_MEAN_RANGE), self._over_channels(self.dispersion))

    def expansion(self, x: Values, raw: Values) -> tuple[Values, Values]:
        """Return (x - mean) / (1 + d mean) and mean (1 + d x) / (1 + d mean)^2."""
        mean, d = raw.clamp(*LOG_MEAN_RANGE).exp(), self._over_channels(self.dispersion)
        spread = 1 + d * mean
        return (x - mean) / spread, mean * (1 + d * x) / spread.square()
