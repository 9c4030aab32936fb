"""Learned scales: positive, above a floor, starting at 1 or at the data's own scale."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import expm1, log

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pyro_dpvae._checks import check_trailing_shape
from pyro_dpvae.likelihoods._base import AbstractLikelihood

__all__ = ["AbstractLearnedScale", "floored_scale"]

# Constant pixels would drive a learned scale to 0 and the density to infinity. The floor is about
# 1 / (255 sqrt(12)), the standard deviation of rounding to 8 bits.
_FLOOR = 1e-3


def floored_scale(raw: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
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

        Raises:
            ValueError: if the data have another shape.
        """
        check_trailing_shape("data", data.shape, self.shape)
        data = data.reshape(-1, *self.shape).double()
        over = [dim for dim in range(data.dim()) if not (self._each and dim == 1)]
        deviation = self._deviation(data, over)
        # softplus(raw) = deviation - floor; at less than twice the floor nothing is left to learn.
        above = deviation.clamp(min=2 * _FLOOR) - _FLOOR
        self.raw_scale.copy_(above + torch.log(-torch.expm1(-above)))

    @staticmethod
    @abstractmethod
    def _deviation(data: Float[Tensor, "data ..."], over: list[int]) -> Tensor:
        """Return the scale that fits data around each pixel's centre, over some dimensions."""

    @property
    def _each(self) -> bool:
        return self.raw_scale.dim() == 1

    def _placed(self) -> Tensor:
        """Return the scales, shaped to broadcast over the channels."""
        return self.scale.reshape(-1, *(1 for _ in self.shape[1:])) if self._each else self.scale
