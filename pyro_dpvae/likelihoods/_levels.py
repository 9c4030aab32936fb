"""Logistic variables rounded to evenly spaced levels: densities, means and samples."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import constraints

__all__ = ["LOG_SCALE_RANGE", "Grid", "draw_rounded", "log_mass", "rounded_mean"]

LOG_SCALE_RANGE = (-10.0, 10.0)
"""Bounds of log scales: a bin is between 1e-7 and 1e5 scales wide, which float32 resolves."""


@final
class Grid(constraints.Constraint):
    """The levels k / top, with a tolerance of a thousandth of a level."""

    is_discrete = True

    def __init__(self, top: int) -> None:
        self.top = top
        super().__init__()

    def check(self, value: Float[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Return True for values on the grid."""
        levels = value * self.top
        nearest = levels.round().clamp(0, self.top)
        return (levels - nearest).abs() <= 1e-3


def log_mass(
    value: Float[Tensor, "..."], loc: Float[Tensor, "..."], scale: Float[Tensor, "..."], top: int
) -> Float[Tensor, "..."]:
    """Return log P(x) of values on the grid, with x the rounding of loc + scale * logistic.

    The bins of 0 and 1 extend to infinity.

    Args:
        value: values on the grid 0, 1 / top, ..., 1.
        loc: location, in the units of the values.
        scale: scale, in the units of the values.
        top: index of the last level.
    """
    level = (value * top).round()
    log_below_upper = F.logsigmoid(((level + 0.5) / top - loc) / scale)
    log_above_lower = F.logsigmoid((loc - (level - 0.5) / top) / scale)
    # log(1 - exp(a - b)); the width b - a is known exactly, without cancellation.
    log_width = torch.log(-torch.expm1(-1 / (top * scale)))
    inner = log_below_upper + log_above_lower + log_width
    inner = torch.where(level <= 0, log_below_upper, inner)
    return torch.where(level >= top, log_above_lower, inner)


def rounded_mean(loc: Tensor, scale: Tensor, top: int) -> Tensor:
    """Return the mean of the rounding of loc + scale * logistic to the grid."""
    # E[level] = sum_k P(level >= k), as a loop, since all levels of a batch at once are too large.
    total = torch.zeros_like(loc)
    for level in range(1, top + 1):
        total = total + torch.sigmoid((loc - (level - 0.5) / top) / scale)
    return total / top


def draw_rounded(loc: Tensor, scale: Tensor, top: int) -> Tensor:
    """Return a sample of loc + scale * logistic, rounded to the grid."""
    level = ((loc + scale * torch.rand_like(loc).logit()) * top).round()
    return level.clamp(0, top) / top
