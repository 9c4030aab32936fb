"""Scales that are learned: positive, above a floor, and 1 at the start."""

from collections.abc import Sequence
from math import expm1, log

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pyro_dpvae.likelihoods._base import AbstractLikelihood

__all__ = ["AbstractLearnedScale", "floored_scale"]

# Pixels that never change would drive a learned scale to 0 and the density to infinity. The
# floor is about 1 / (255 sqrt(12)), the standard deviation of rounding to 8 bits.
_FLOOR = 1e-3


def floored_scale(raw: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return 0.001 + softplus(raw)."""
    return _FLOOR + F.softplus(raw)


class AbstractLearnedScale(AbstractLikelihood):
    """A likelihood with one scale for all pixels, 0.001 + softplus(parameter), 1 at the start."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        self.raw_scale = nn.Parameter(torch.tensor(log(expm1(1 - _FLOOR))))

    @property
    def scale(self) -> Float[Tensor, ""]:
        """The scale of a pixel."""
        return floored_scale(self.raw_scale)
