"""Gaussian likelihoods, with a fixed, a learned, and a learned per-pixel variance."""

import math
from collections.abc import Sequence
from typing import Self, final

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_dpvae._checks import check_positive
from pyro_dpvae.likelihoods._base import AbstractLikelihood, check_finite

__all__ = ["Gaussian", "GaussianLearnedVariance", "GaussianPixelVariance"]

# Pixels that never change would pull a learned deviation to 0 and the density to infinity. A
# quarter of a grey level is finer than anything that 8-bit data can tell.
_SMALLEST = 1e-3


@final
class Gaussian(AbstractLikelihood):
    """p(x | mu) = N(x; mu, variance I), for real pixels.

    Args:
        shape: of a datum.
        variance: of each pixel.

    Raises:
        ValueError: if ``variance`` is not positive.

    Example:
        >>> Gaussian((2,), variance=0.01)(torch.zeros(1, 2)).log_prob(torch.zeros(1, 2))
        tensor([2.7673])
    """

    def __init__(self, shape: Sequence[int], *, variance: float = 0.5) -> None:
        super().__init__(shape, values=1)
        self.variance = check_positive("variance", variance)

    @classmethod
    def from_weight(cls, shape: Sequence[int], weight: float) -> Self:
        """Return the likelihood that a weight w on the squared error stands for.

        w * |x - mu|^2 equals -log N(x; mu, variance I) up to a constant for variance = 1 / (2w).

        References:
            Bhalodia, Lee, Elhabian (2020), dpVAEs: ``mse_weight`` in the authors' code.
        """
        return cls(shape, variance=1 / (2 * check_positive("weight", weight)))

    def forward(self, raw: Float[Tensor, "..."]) -> dist.Independent:
        """Return p(x | raw); raw holds means."""
        deviation = torch.full_like(raw, math.sqrt(self.variance))
        return self._whole(dist.Normal(raw, deviation, validate_args=False), _check_real)


@final
class GaussianLearnedVariance(AbstractLikelihood):
    """p(x | mu) = N(x; mu, sigma^2 I), with one sigma for all pixels, learned.

    sigma = 0.001 + softplus(s), so that the density stays bounded.

    Args:
        shape: of a datum.
        initial: sigma before training.

    Raises:
        ValueError: if ``initial`` is not above 0.001.

    References:
        Rybkin, Daniilidis, Levine (2021), Simple and Effective VAE Training with Calibrated
        Decoders, section 3.

    Example:
        >>> GaussianLearnedVariance((2,))(torch.zeros(1, 2)).stddev.detach()
        tensor([[0.5000, 0.5000]])
    """

    def __init__(self, shape: Sequence[int], *, initial: float = 0.5) -> None:
        super().__init__(shape, values=1)
        if not initial > _SMALLEST:
            raise ValueError(f"initial must be above {_SMALLEST}, got {initial}")
        self.raw_deviation = nn.Parameter(torch.tensor(math.log(math.expm1(initial - _SMALLEST))))

    def forward(self, raw: Float[Tensor, "..."]) -> dist.Independent:
        """Return p(x | raw); raw holds means."""
        deviation = (_SMALLEST + softplus(self.raw_deviation)).expand_as(raw)
        return self._whole(dist.Normal(raw, deviation, validate_args=False), _check_real)


@final
class GaussianPixelVariance(AbstractLikelihood):
    """p(x | mu, s) = prod_i N(x_i; mu_i, sigma_i^2), both from the network.

    sigma_i = 0.001 + softplus(s_i), so that the density stays bounded.

    Args:
        shape: of a datum.

    Example:
        >>> GaussianPixelVariance((1, 28, 28)).raw_shape
        (2, 28, 28)
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape, values=2)

    def forward(self, raw: Float[Tensor, "..."]) -> dist.Independent:
        """Return p(x | raw); raw holds means, then raw deviations."""
        mean, deviation = self._split(raw)
        deviation = _SMALLEST + softplus(deviation)
        return self._whole(dist.Normal(mean, deviation, validate_args=False), _check_real)


def _check_real(value: Tensor) -> None:
    check_finite("a Gaussian likelihood", value)
