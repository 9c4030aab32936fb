"""Which evaluation is the best one, and when training has stopped getting better."""

import math
from typing import Any, final

from pyro_dpvae._checks import check_choice, check_positive_int

__all__ = ["MONITORS", "Progress"]

MONITORS = ("elbo", "loss")
"""What may be watched on held-out data: the evidence lower bound, or the objective's own loss."""


@final
class Progress:
    """The best of a run's evaluations, and for how many there has been no better one.

    While schedules of the objective go on, or a guide grows, its own numbers move with them: a
    rate of small weight makes a low loss. So until ``begins`` every evaluation takes the place of
    the one before as the best, and none counts as being without improvement. So it is too where
    a run ends before them and later goes on.

    Args:
        monitor: ``"elbo"``, of which more is better, or ``"loss"``, of which less is.
        patience: how many evaluations in a row may bring no improvement; None goes on for ever.
        begins: the step from which evaluations are compared.

    Raises:
        ValueError: if there is no such monitor, or ``patience`` is below 1.

    Attributes:
        best_step: the step of the best evaluation; None before the first.
        best: what was watched there.

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
        """Note what was watched after a step; returns whether it is the best so far.

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
        """Whether as many evaluations as ``patience`` have brought no improvement."""
        return self.patience is not None and self.without >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Return what was observed, as JSON holds it."""
        finite = self.best if self.best is None or math.isfinite(self.best) else None
        return {
            "best": finite,
            "best_step": self.best_step,
            "without": self.without,
            "begins": self.begins,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take on what was observed, as of :meth:`state_dict`."""
        self.best, self.best_step = state["best"], state["best_step"]
        self.without, self.begins = state["without"], state["begins"]

    def _better(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.best is None or not math.isfinite(self.best):
            return True
        return value > self.best if self.monitor == "elbo" else value < self.best
