"""The best evaluation of a run, and early stopping."""

import math
from typing import Any, final

from pyro_dpvae._checks import check_choice, check_positive_int

__all__ = ["MONITORS", "Progress"]

MONITORS = ("elbo", "loss")
"""Values to monitor on held-out data: the evidence lower bound, or the objective's loss."""


@final
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

    Raises:
        ValueError: if ``monitor`` is unknown, or ``patience`` is below 1.

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

    def __init__(self, monitor: str, *, patience: int | None, begins: int) -> None:
        self.monitor = check_choice("monitor", monitor, MONITORS)
        self.patience = None if patience is None else check_positive_int("patience", patience)
        self.begins = begins
        self.best: float | None = None
        self.best_step: int | None = None
        self.without = 0

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
        self.best, self.best_step = state["best"], state["best_step"]
        self.without, self.begins = state["without"], state["begins"]

    def _better(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.best is None or not math.isfinite(self.best):
            return True
        return value > self.best if self.monitor == "elbo" else value < self.best
