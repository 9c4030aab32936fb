"""The progress of a run: its place, its records, its best evaluation, and early stopping."""

import math
from dataclasses import asdict, dataclass, field
from signal import Signals
from typing import Any, final

__all__ = ["MONITORS", "History", "Place", "Progress"]

MONITORS = ("elbo", "loss")
"""Values to monitor on held-out data: the evidence lower bound, or the objective's loss."""


@final
@dataclass
class Progress:
    """Track the best evaluation, and count evaluations without improvement.

    While schedules run or a guide grows, the objective changes: a small weight of the rate makes a
    low loss. So evaluations before ``begins`` are not compared: each replaces the best one, and
    none counts as without improvement. This also holds for a run that ends before ``begins`` and
    is resumed later.

    Args:
        monitor: ``"elbo"`` (larger is better) or ``"loss"`` (smaller is better).
        patience: the number of evaluations without improvement after which training stops; None
            never stops early.
        begins: the step from which evaluations are compared.

    Attributes:
        best_step: the step of the best evaluation; None before the first.
        best: the monitored value at that step.

    Example:
        >>> progress = Progress("elbo", patience=2, begins=200)
        >>> [progress.observe(100 * (1 + n), v) for n, v in enumerate([-1.0, -9.0, -5.0, -6.0])]
        [True, True, True, False]
        >>> progress.best_step, progress.exhausted
        (300, False)
        >>> progress.observe(500, -5.0), progress.exhausted
        (False, True)
    """

    monitor: str
    patience: int | None = field(kw_only=True)
    begins: int = field(kw_only=True)
    best_step: int | None = None
    best: float | None = None
    without: int = 0

    def observe(self, step: int, value: float) -> bool:
        """Add the value of an evaluation; return True if it is the best so far.

        A value that is not finite is never better.
        """
        before = self.best_step is None or self.best_step < self.begins
        if before or self._better(value):
            self.best, self.best_step, self.without = value, step, 0
            return True
        self.without += 1
        return False

    @property
    def exhausted(self) -> bool:
        """True if ``patience`` evaluations in a row have brought no improvement."""
        return self.patience is not None and self.without >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Return the state for JSON."""
        finite = self.best if self.best is None or math.isfinite(self.best) else None
        return {
            "best": finite,
            "best_step": self.best_step,
            "without": self.without,
            "begins": self.begins,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state of :meth:`state_dict`."""
        for name, value in state.items():
            setattr(self, name, value)

    def _better(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.best is None or not math.isfinite(self.best):
            return True
        return value > self.best if self.monitor == "elbo" else value < self.best


@dataclass
class Place:
    """The progress of a run: all that decides what comes next, besides tensors and random states.

    Attributes:
        step: number of steps done.
        epoch: number of the current epoch.
        batch: number of batches done in this epoch.
        concluded: the last step whose evaluation, checkpoint and guide changes are done too.
        growth: the steps after which the guide will grow.
        cluster_step: the step after which clusters will be initialised from data, if any.
        seconds: training time so far.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    concluded: int = 0
    growth: list[int] = field(default_factory=list)
    cluster_step: int | None = None
    seconds: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the attributes."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the attributes."""
        for name, value in state.items():
            setattr(self, name, value)


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
