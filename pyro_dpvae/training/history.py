"""What happened in a training run."""

from dataclasses import dataclass, field
from signal import Signals
from typing import Any

__all__ = ["History"]


@dataclass
class History:
    """What happened in a training run.

    Attributes:
        records: what was recorded, in order.
        step: how many steps were taken.
        signal: what ended the run early; None at its regular end.
        stopped: whether it ended early because nothing had improved for its patience.
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
        """Whether the run was ended early."""
        return self.signal is not None

    @property
    def held_out(self) -> dict[str, float]:
        """The last terms on held-out data, per datum, in nats."""
        terms = next(r["held_out"] for r in reversed(self.records) if "held_out" in r)
        return {name: float(term) for name, term in terms.items()}  # read, "nan" is a string

    @property
    def evaluated(self) -> int | None:
        """The step of the last terms on held-out data; None before there are any."""
        return next((r["step"] for r in reversed(self.records) if "held_out" in r), None)
