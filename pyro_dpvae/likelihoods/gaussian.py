"""The Gaussian likelihoods: with a fixed or learned variance, or one for each pixel."""

from collections.abc import Sequence
from typing import ClassVar, final

import pyro.distributions as dist
from jaxtyping import Float
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_dpvae._checks import check_positive
from pyro_dpvae.likelihoods._base import AbstractLikelihood
from pyro_dpvae.likelihoods._scale import AbstractLearnedScale, floored_scale

__all__ = [
    "GaussianLearnedVarianceLikelihood",
    "GaussianLikelihood",
    "GaussianPixelVarianceLikelihood",
]

_RULE = "a Gaussian likelihood takes finite values"


@final
class GaussianLikelihood(AbstractLikelihood):
    """N(x; raw, variance I), with the variance fixed.

        log p(x) = -sum (x - raw)^2 / (2 variance) - (D / 2) log(2 pi variance)

    Args:
        shape: shape of an item, (C, H, W) or (D,).
        variance: variance of a pixel; with 0.5, -log p is the sum of squared errors plus a
            constant.

    Raises:
        ValueError: if ``variance`` is not positive and finite.

    References:
        Kingma, Welling (2014), Auto-Encoding Variational Bayes, appendix C.2.

    Example:
        >>> import torch
        >>> p = GaussianLikelihood((2,), variance=1.0)(torch.zeros(2))
        >>> p.log_prob(torch.zeros(2))  # -log(2 pi)
        tensor(-1.8379)
    """

    rule = _RULE

    def __init__(self, shape: Sequence[int], variance: float = 0.5) -> None:
        super().__init__(shape)
        self.variance = check_positive("variance", variance)

    @classmethod
    def from_weight(cls, shape: Sequence[int], weight: float) -> "GaussianLikelihood":
        """Return the likelihood with -log p = weight * (sum of squared errors) + constant.

        This weight is ``mse_weight`` in the code of Bhalodia, Lee, Elhabian (2020); the variance
        is 1 / (2 weight).

        Raises:
            ValueError: if ``weight`` is not positive and finite.

        Example:
            >>> GaussianLikelihood.from_weight((1, 28, 28), 10.0).variance
            0.05
        """
        return cls(shape, variance=1 / (2 * check_positive("weight", weight)))

    def pixels(self, raw: Float[Tensor, "..."]) -> TorchDistributionMixin:
        """Return the normal distributions of the pixels."""
        return dist.Normal(raw, self.variance**0.5)

    def expansion(
        self, x: Float[Tensor, "..."], raw: Float[Tensor, "..."]
    ) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
        """Return (x - raw) / variance and 1 / variance, of shape ()."""
        return _gaussian_expansion(x, raw, raw.new_full((), self.variance))


@final
class GaussianLearnedVarianceLikelihood(AbstractLearnedScale):
    """N(x; raw, scale^2 I), with one scale for all pixels, learned with the decoder.

    The scale is 0.001 + softplus(parameter), initially 1. ``start_at(data)`` sets it to the
    standard deviation of pixels around their own mean. The floor of 0.001 keeps the density
    bounded if the data can be fitted exactly.

    Args:
        shape: shape of an item, (C, H, W) or (D,).
        by_channel: use one scale for each channel of an image, or column of a vector, for example
            for columns in different units.

    References:
        Rybkin, Daniilidis, Levine (2021), Simple and Effective VAE Training with Calibrated
        Decoders, section 3.1 (sigma-VAE).

    Example:
        >>> import torch
        >>> likelihood = GaussianLearnedVarianceLikelihood((2,))
        >>> likelihood.scale.detach()
        tensor(1.0000)
        >>> likelihood.start_at(torch.tensor([[7.0, -0.5], [7.2, -0.3]]))
        >>> likelihood.scale.detach()
        tensor(0.1000)
    """

    rule = _RULE

    def pixels(self, raw: Float[Tensor, "..."]) -> TorchDistributionMixin:
        """Return the normal distributions of the pixels."""
        return dist.Normal(raw, self._placed())

    def expansion(
        self, x: Float[Tensor, "..."], raw: Float[Tensor, "..."]
    ) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
        """Return (x - raw) / scale^2 and 1 / scale^2, of a shape that broadcasts."""
        return _gaussian_expansion(x, raw, self._placed().square())

    @staticmethod
    def _deviation(data: Float[Tensor, "data ..."], over: list[int]) -> Tensor:
        return (data - data.mean(0)).square().mean(over).sqrt()


@final
class GaussianPixelVarianceLikelihood(AbstractLikelihood):
    """N(x; mean, diag scale^2), both from the decoder, pixel by pixel.

    The first half of the raw channels is the mean; the scale is 0.001 + softplus(second half).
    The floor of 0.001 keeps the density bounded on constant pixels.

    Args:
        shape: shape of an item, (C, H, W) or (D,).

    References:
        Kingma, Welling (2014), Auto-Encoding Variational Bayes, appendix C.2.

    Example:
        >>> import torch
        >>> likelihood = GaussianPixelVarianceLikelihood((3, 32, 32))
        >>> likelihood.raw_shape
        (6, 32, 32)
        >>> likelihood(torch.zeros(5, 6, 32, 32)).event_shape
        torch.Size([3, 32, 32])
    """

    values_per_pixel: ClassVar[int] = 2
    rule = _RULE

    def pixels(self, raw: Float[Tensor, "..."]) -> TorchDistributionMixin:
        """Return the normal distributions of the pixels."""
        mean, raw_scale = self.split(raw)
        return dist.Normal(mean, floored_scale(raw_scale))


def _gaussian_expansion(x: Tensor, raw: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    precision = variance.reciprocal()
    return precision * (x - raw), precision
