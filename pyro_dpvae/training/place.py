"""The progress of a run."""

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Place"]


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
