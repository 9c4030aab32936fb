"""What a metric returns: a value, its standard error, and the settings that define it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

__all__ = ["Estimate", "Settings", "mean_estimate", "share_estimate"]

Settings = Mapping[str, int | float | str]
"""What defines an estimate, by name."""


@dataclass(frozen=True)
class Estimate:
    """A measured value.

    Args:
        value: the estimate.
        standard_error: its standard error, in the same units; NaN where it is not known.
        settings: what defines the estimate, such as the number of samples.

    Example:
        >>> Estimate(0.25, 0.01)
        0.2500 +- 0.0100
    """

    value: float
    standard_error: float
    settings: Settings = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"{self.value:.4f} +- {self.standard_error:.4f}"


def mean_estimate(values: Tensor, settings: Settings) -> Estimate:
    """Return the mean of independent values; of one its standard error is not known."""
    count = len(values)
    error = float(values.std()) / math.sqrt(count) if count > 1 else math.nan
    return Estimate(float(values.mean()), error, settings)


def share_estimate(hits: int, count: int, settings: Settings) -> Estimate:
    """Return the share of ``hits`` among ``count``, with the error of Agresti and Coull.

    Two hits and two misses are added for the error, which a share of 0 or 1 then has too.
    """
    adjusted = (hits + 2) / (count + 4)
    error = math.sqrt(adjusted * (1 - adjusted) / (count + 4))
    return Estimate(hits / count, error, settings)
