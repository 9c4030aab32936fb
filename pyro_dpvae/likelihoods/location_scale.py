"""The Gaussian and Laplace likelihoods: with a fixed or learned scale, or one for each pixel."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import expm1, log
from typing import ClassVar, final

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_dpvae._checks import check_positive, check_trailing_shape
from pyro_dpvae.likelihoods._base import AbstractLikelihood, Values

__all__ = [
    "AbstractLearnedScale",
    "GaussianLearnedVarianceLikelihood",
    "GaussianLikelihood",
    "GaussianPixelVarianceLikelihood",
    "LaplaceLearnedScaleLikelihood",
    "LaplaceLikelihood",
    "floored_scale",
]

# Constant pixels would drive a learned scale to 0 and the density to infinity. The floor is about
# 1 / (255 sqrt(12)), the standard deviation of rounding to 8 bits.
_FLOOR = 1e-3


def floored_scale(raw: Values) -> Values:
    """Return 0.001 + softplus(raw)."""
    return _FLOOR + F.softplus(raw)


class AbstractLearnedScale(AbstractLikelihood, ABC):
    """A likelihood with one scale for all pixels, or for each channel.

    It is 0.001 + softplus(parameter), initially 1. For data with a smaller deviation,
    :meth:`start_at` sets it to that: with too large a scale, errors weigh little, and a model may
    learn to ignore z before the scale has decreased.

    Args:
        shape: shape of an item, (C, H, W) or (D,).
        by_channel: use one scale for each channel of an image, or column of a vector, for example
            for columns in different units.
    """

    def __init__(self, shape: Sequence[int], *, by_channel: bool = False) -> None:
        super().__init__(shape)
        size = (self.shape[0],) if by_channel else ()
        self.raw_scale = nn.Parameter(torch.full(size, log(expm1(1 - _FLOOR))))

    @property
    def scale(self) -> Float[Tensor, "*channels"]:
        """The scale of a pixel, or of each channel."""
        return floored_scale(self.raw_scale)

    @torch.no_grad()
    def start_at(self, data: Float[Tensor, "data ..."]) -> None:
        """Set the scale to the deviation of data, of shape (N, *shape), around their mean item.

        With a scale for each column or channel, that of one with a single value is 1: at the least
        scale its errors would outweigh those of all others.

        Raises:
            ValueError: if the data have another shape.
        """
        check_trailing_shape("data", data.shape, self.shape)
        data = data.reshape(-1, *self.shape).double()
        each = self.raw_scale.dim() == 1
        over = [d for d in range(data.dim()) if not (each and d == 1)]
        deviation = self._deviation(data, over)
        if each:
            constant = data.amax(over) == data.amin(over)
            deviation = torch.where(constant, torch.ones_like(deviation), deviation)
        # softplus(raw) = deviation - floor; at less than twice the floor nothing is left to learn.
        above = deviation.clamp(min=2 * _FLOOR) - _FLOOR
        self.raw_scale.copy_(above + torch.log(-torch.expm1(-above)))

    @staticmethod
    @abstractmethod
    def _deviation(data: Float[Tensor, "data ..."], over: list[int]) -> Tensor:
        """Return the scale that fits data around each pixel's centre, over some dimensions."""

    def _placed(self) -> Tensor:
        """Return the scales, shaped to broadcast over the channels."""
        return self._over_channels(self.scale) if self.raw_scale.dim() else self.scale


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

    def pixels(self, raw: Values) -> TorchDistributionMixin:
        """Return the normal distributions of the pixels."""
        return dist.Normal(raw, self.variance**0.5)

    def expansion(self, x: Values, raw: Values) -> tuple[Values, Values]:
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

    def pixels(self, raw: Values) -> TorchDistributionMixin:
        """Return the normal distributions of the pixels."""
        return dist.Normal(raw, self._placed())

    def expansion(self, x: Values, raw: Values) -> tuple[Values, Values]:
        """Return (x - raw) / scale^2 and 1 / scale^2, of the shape of x or of shape ()."""
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

    def pixels(self, raw: Values) -> TorchDistributionMixin:
        """Return the normal distributions of the pixels."""
        mean, raw_scale = self.split(raw)
        return dist.Normal(mean, floored_scale(raw_scale))


def _gaussian_expansion(x: Tensor, raw: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    precision, difference = variance.reciprocal(), x - raw
    return precision * difference, precision.expand_as(
        difference
    ) if precision.dim() else precision


_LAPLACE_RULE = "a Laplace likelihood takes finite values"


@final
class LaplaceLikelihood(AbstractLikelihood):
    """The Laplace density of each pixel around the raw value, with the scale fixed.

        log p(x) = -sum |x - raw| / scale - D log(2 scale)

    Args:
        shape: shape of an item, (C, H, W) or (D,).
        scale: scale of a pixel; with 1, -log p is the sum of absolute errors plus a constant.

    Raises:
        ValueError: if ``scale`` is not positive and finite.

    References:
        Zhao, Song, Ermon (2017), Learning hierarchical features from generative models: the
        absolute errors of their released code correspond to a scale of 1 / 8 for data in [0, 1],
        and 2 for data in [-1, 1].

    Example:
        >>> import torch
        >>> p = LaplaceLikelihood((2,), scale=0.5)(torch.zeros(2))
        >>> p.log_prob(torch.tensor([1.0, -1.0]))
        tensor(-4.)
    """

    rule = _LAPLACE_RULE

    def __init__(self, shape: Sequence[int], scale: float = 0.125) -> None:
        super().__init__(shape)
        self.scale = check_positive("scale", scale)

    def pixels(self, raw: Values) -> TorchDistributionMixin:
        """Return the Laplace distributions of the pixels."""
        return dist.Laplace(raw, self.scale)


@final
class LaplaceLearnedScaleLikelihood(AbstractLearnedScale):
    """The Laplace density around the raw value, with one scale for all, learned with the decoder.

    The scale is 0.001 + softplus(parameter), initially 1. ``start_at(data)`` sets it to the mean
    distance of pixels from their own median. The floor of 0.001 keeps the density bounded if the
    data can be fitted exactly.

    Args:
        shape: shape of an item, (C, H, W) or (D,).
        by_channel: use one scale for each channel of an image, or column of a vector, for example
            for columns in different units.

    Example:
        >>> LaplaceLearnedScaleLikelihood((2,)).scale.detach()
        tensor(1.0000)
    """

    rule = _LAPLACE_RULE

    def pixels(self, raw: Values) -> TorchDistributionMixin:
        """Return the Laplace distributions of the pixels."""
        return dist.Laplace(raw, self._placed())

    @staticmethod
    def _deviation(data: Float[Tensor, "data ..."], over: list[int]) -> Tensor:
        return (data - data.median(0).values).abs().mean(over)
