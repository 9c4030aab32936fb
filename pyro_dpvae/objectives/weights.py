"""Weighted parts: modules whose named weights are numbers or follow schedules."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyro_dpvae.objectives.schedules import Weight

__all__ = ["WeightedModule"]


class WeightedModule(nn.Module):
    """A part of an objective with named weights.

    A number stays a number. A schedule is held as a tensor of no dimensions, which
    :meth:`set_step` fills in place: whoever records the computation once and replays it sees the
    weight change.

    Args:
        weights: by name; none may be negative where ``signed`` is False.
        signed: whether weights may be negative.

    Raises:
        ValueError: for a weight that is not finite, or negative where none may be.
    """

    def __init__(self, *, signed: bool = False, **weights: Weight) -> None:
        super().__init__()
        self._signed = signed
        self._weights: dict[str, float | Callable[[int], float]] = {}
        for name, weight in weights.items():
            if callable(weight):
                self._weights[name] = weight
                value = torch.tensor(self._checked(name, weight(0), step=0))
                self.register_buffer(f"scheduled_{name}", value, persistent=False)
            else:
                self._weights[name] = self._checked(name, weight)

    def weight(self, name: str) -> float | Tensor:
        """Return the weight at the present step: a number, or a tensor of no dimensions."""
        weight = self._weights[name]
        if callable(weight):
            value: Tensor = getattr(self, f"scheduled_{name}")
            return value.clone()  # what a gradient needs must not change in place
        return weight

    def set_step(self, step: int) -> None:
        """Set the weights that have schedules to their values at a training step."""
        for tensor, value in self.scheduled(step):
            tensor.fill_(value)

    def scheduled(self, step: int) -> list[tuple[Tensor, float]]:
        """Return the tensors of the weights that have schedules, and their values at a step."""
        return [
            (getattr(self, f"scheduled_{name}"), self._checked(name, weight(step), step=step))
            for name, weight in self._weights.items()
            if callable(weight)
        ]

    @property
    def schedule_lengths(self) -> dict[str, int]:
        """How many steps the schedules take, by the weights' names, where they say so."""
        return {
            name: weight.steps
            for name, weight in self._weights.items()
            if hasattr(weight, "steps")
        }

    @property
    def settings(self) -> dict[str, Any]:
        """What defines the part, for the record: its weights and choices, as JSON holds them."""
        return {
            name: repr(weight) if callable(weight) else weight
            for name, weight in self._weights.items()
        }

    def extra_repr(self) -> str:
        """Return the weights and choices, for ``repr``."""
        return ", ".join(f"{name}={value}" for name, value in self.settings.items())

    def _checked(self, name: str, value: int | float, *, step: int | None = None) -> float:
        at = "" if step is None else f" at step {step}"
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}{at}")
        if value < 0 and not self._signed:
            raise ValueError(f"{name} must be 0 or more, got {value}{at}")
        return float(value)
