"""Where a run stands."""

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Place"]


@dataclass
class Place:
    """Where a run stands; all that decides what comes next, besides tensors and random states.

    Attributes:
        step: how many steps are done.
        epoch: the number of the present pass over the data.
        batch: how many batches of it are done.
        concluded: the last step after which all that follows a step was done too.
        growth: the steps after which the guide is still to grow.
        cluster_step: the step after which clusters are still to start from data, if any.
        seconds: of training so far.
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
        """Take on attributes."""
        for name, value in state.items():
            setattr(self, name, value)
