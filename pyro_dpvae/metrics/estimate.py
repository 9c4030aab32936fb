"""Estimates: values of metrics with their standard errors and settings."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

__all__ = ["Estimate", "Settings", "mean_estimate", "share_estimate", "sum_estimate"]

Settings = Mapping[str, int | float | str]
"""The settings that define an estimate, by name."""


@dataclass(frozen=True)
class Estimate:
    """The value of a metric.

    Args:
        value: the value.
        standard_error: its standard error, in the same units; NaN if unknown.
        settings: the settings that define it, such as the number of samples.

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
    """Return the mean of independent values; a single one has no standard error."""
    count = len(values)
    error = float(values.std()) / math.sqrt(count) if count > 1 else math.nan
    return Estimate(float(values.mean()), error, settings)


def share_estimate(hits: int, count: int, settings: Settings) -> Estimate:
    """Return the share of ``hits`` among ``count``, with the error of Agresti and Coull.

    Two added hits and two misses give a share of 0 or 1 an error too.
    """
    adjusted = (hits + 2) / (count + 4)
    error = math.sqrt(adjusted * (1 - adjusted) / (count + 4))
    return Estimate(hits / count, error, settings)


def sum_estimate(first: Estimate, second: Estimate) -> Estimate:
    """Return the sum of two independent estimates, with the settings of the first."""
    error = math.hypot(first.standard_error, second.standard_error)
    return Estimate(first.value + second.value, error, first.settings)
