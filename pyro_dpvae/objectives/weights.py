"""Modules with named weights that are numbers or follow schedules."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pyro_dpvae.objectives.schedules import Weight

__all__ = ["WeightedModule"]


class WeightedModule(nn.Module):
    """A part of an objective with named weights.

    A schedule's value is stored in a scalar tensor that :meth:`set_step` fills in place, so that a
    captured step sees the weight change.

    Args:
        weights: weights by name, numbers or schedules; negative ones need ``signed``.
        signed: allow negative weights.

    Raises:
        ValueError: for a weight that is not finite, or negative without ``signed``.
    """

    options: ClassVar[tuple[str, ...]] = ()
    """Names of further attributes in ``settings``."""

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
        """Return the weight at the current step: a number or a scalar tensor."""
        weight = self._weights[name]
        if callable(weight):
            value: Tensor = getattr(self, f"scheduled_{name}")
            return value.clone()  # saved for gradients, so it must not change in place
        return weight

    def set_step(self, step: int) -> None:
        """Set scheduled weights to their values at a training step."""
        for tensor, value in self.scheduled(step):
            tensor.fill_(value)

    def scheduled(self, step: int) -> list[tuple[Tensor, float]]:
        """Return the tensors of scheduled weights, and their values at a step."""
        return [
            (getattr(self, f"scheduled_{name}"), self._checked(name, weight(step), step=step))
            for name, weight in self._weights.items()
            if callable(weight)
        ]

    @property
    def schedule_lengths(self) -> dict[str, int]:
        """The lengths of the schedules by weight, if they have one."""
        return {k: w.steps for k, w in self._weights.items() if hasattr(w, "steps")}

    @property
    def settings(self) -> dict[str, Any]:
        """The weights and options of the part, for records in JSON."""
        weights = {k: repr(w) if callable(w) else w for k, w in self._weights.items()}
        return {**weights, **{name: getattr(self, name) for name in self.options}}

    def extra_repr(self) -> str:
        """Return the weights and options, for ``repr``."""
        return ", ".join(f"{name}={value}" for name, value in self.settings.items())

    def _checked(self, name: str, value: int | float, *, step: int | None = None) -> float:
        at = "" if step is None else f" at step {step}"
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}{at}")
        if value < 0 and not self._signed:
            raise ValueError(f"{name} must be 0 or more, got {value}{at}")
        return float(value)
