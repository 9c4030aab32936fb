"""The history of a training run."""

from dataclasses import dataclass, field
from signal import Signals
from typing import Any

__all__ = ["History"]


@dataclass
class History:
    """The history of a training run.

    Attributes:
        records: all records in order.
        step: the number of steps taken.
        signal: the signal that ended the run early; None at its regular end.
        stopped: True if early stopping ended the run.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    step: int = 0
    signal: Signals | None = None
    stopped: bool = False

    def __repr__(self) -> str:
        parts = [f"{self.step} steps", f"{len(self.records)} records"]
        if self.evaluated is not None:
            parts.append(f"held out at step {self.evaluated}: {self.held_out}")
        if self.signal is not None:
            parts.append(f"ended by {self.signal.name}")
        if self.stopped:
            parts.append("stopped early")
        return f"History({', '.join(parts)})"

    @property
    def interrupted(self) -> bool:
        """True if a signal ended the run early."""
        return self.signal is not None

    @property
    def held_out(self) -> dict[str, float]:
        """The terms of the last held-out evaluation, per datum, in nats."""
        terms = next(r["held_out"] for r in reversed(self.records) if "held_out" in r)
        return {name: float(term) for name, term in terms.items()}  # "nan" is a string in JSON

    @property
    def evaluated(self) -> int | None:
        """The step of the last held-out evaluation; None before the first."""
        return next((r["step"] for r in reversed(self.records) if "held_out" in r), None)
