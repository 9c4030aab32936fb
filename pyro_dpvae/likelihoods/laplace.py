"""The Laplace likelihoods, with absolute errors and a fixed or learned scale."""

from collections.abc import Sequence
from typing import final

import pyro.distributions as dist
from jaxtyping import Float
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_dpvae._checks import check_positive
from pyro_dpvae.likelihoods._base import AbstractLikelihood
from pyro_dpvae.likelihoods._scale import AbstractLearnedScale

__all__ = ["LaplaceLearnedScaleLikelihood", "LaplaceLikelihood"]

_RULE = "a Laplace likelihood takes finite values"


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

    rule = _RULE

    def __init__(self, shape: Sequence[int], scale: float = 0.125) -> None:
        super().__init__(shape)
        self.scale = check_positive("scale", scale)

    def pixels(self, raw: Float[Tensor, "..."]) -> TorchDistributionMixin:
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

    rule = _RULE

    def pixels(self, raw: Float[Tensor, "..."]) -> TorchDistributionMixin:
        """Return the Laplace distributions of the pixels."""
        return dist.Laplace(raw, self._placed())

    @staticmethod
    def _deviation(data: Float[Tensor, "data ..."], over: list[int]) -> Tensor:
        return (data - data.median(0).values).abs().mean(over)
