"""What a metric returns: a value, its standard error, and the settings that define it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Estimate", "Settings"]

Settings = Mapping[str, int | float | str]
"""What defines an estimate, by name."""


@dataclass(frozen=True)
class Estimate:
    """A measured value.

    Args:
        value: the estimate.
        standard_error: its standard error, in the same units.
        settings: what defines the estimate, such as the number of samples.

    Example:
        >>> print(Estimate(0.25, 0.01))
        0.2500 +- 0.0100
    """

    value: float
    standard_error: float
    settings: Settings = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.value:.4f} +- {self.standard_error:.4f}"
