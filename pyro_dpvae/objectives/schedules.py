"""Schedules: weights that change with the training step; and modules that have such weights."""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from pyro_dpvae._checks import check_positive, check_positive_int

__all__ = [
    "SCHEDULES",
    "AbstractSchedule",
    "CosineSchedule",
    "CyclicSchedule",
    "DelayedSchedule",
    "ExponentialSchedule",
    "LinearSchedule",
    "SaturatingSchedule",
    "Weight",
    "WeightedModule",
    "combined",
]

Weight = float | int | Callable[[int], float]
"""A weight of an objective: a number, a schedule, or any function of the training step."""


class AbstractSchedule(ABC):
    """A weight that goes from ``start`` to ``end`` in a number of steps and stays there.

    Args:
        start: the weight at step 0.
        end: the weight from step ``steps`` on.
        steps: the number of training steps of the change.

    Raises:
        ValueError: if a weight is not finite, or ``steps`` below 1.
    """

    _options: ClassVar[tuple[str, ...]] = ()

    def __init__(self, start: int | float, end: int | float, steps: int) -> None:
        for name, value in (("start", start), ("end", end)):
            if not math.isfinite(value):
                raise ValueError(f"{name} must be finite, got {value}")
        self.start, self.end = float(start), float(end)
        self.steps = check_positive_int("steps", steps)

    def __call__(self, step: int) -> float:
        """Return the weight at a training step, counted from 0."""
        if step >= self.steps:
            return self.end
        return self.between(step / self.steps)

    @abstractmethod
    def between(self, fraction: float) -> float:
        """Return the weight after a fraction of the steps, in [0, 1)."""

    def __repr__(self) -> str:
        options = "".join(f", {name}={getattr(self, name):g}" for name in self._options)
        return f"{type(self).__name__}({self.start:g}, {self.end:g}, {self.steps}{options})"


@final
class LinearSchedule(AbstractSchedule):
    """A straight line from start to end, as in Burgess et al. (2018) and in KL warm-up.

    Example:
        >>> capacity = LinearSchedule(0.0, 25.0, 100_000)
        >>> capacity(50_000), capacity(200_000)
        (12.5, 25.0)
    """

    def between(self, fraction: float) -> float:
        """Return start + fraction (end - start)."""
        return self.start + fraction * (self.end - self.start)


@final
class CosineSchedule(AbstractSchedule):
    """Half a cosine wave from start to end: slow at both ends.

    Example:
        >>> round(CosineSchedule(0.0, 4.0, 100)(50), 6)
        2.0
    """

    def between(self, fraction: float) -> float:
        """Return start + (1 - cos(pi fraction)) / 2 (end - start)."""
        return self.start + (1 - math.cos(math.pi * fraction)) / 2 * (self.end - self.start)


@final
class ExponentialSchedule(AbstractSchedule):
    """A geometric change from start to end, with equal factors in equal times.

    Raises:
        ValueError: if a weight is not positive.

    Example:
        >>> round(ExponentialSchedule(0.01, 1.0, 100)(50), 6)
        0.1
    """

    def __init__(self, start: int | float, end: int | float, steps: int) -> None:
        super().__init__(start, end, steps)
        if not (start > 0 and end > 0):
            raise ValueError(
                f"an exponential schedule needs positive weights, got {start} and {end}; "
                "start from a small positive one, or use LinearSchedule"
            )

    def between(self, fraction: float) -> float:
        """Return start (end / start) ^ fraction."""
        return self.start * (self.end / self.start) ** fraction


@final
class DelayedSchedule(AbstractSchedule):
    """The start for a number of steps, and then the end.

    Example:
        >>> beta = DelayedSchedule(0.01, 1.0, 500)
        >>> beta(499), beta(500)
        (0.01, 1.0)
    """

    def between(self, fraction: float) -> float:
        """Return the start."""
        return self.start


@final
class CyclicSchedule(AbstractSchedule):
    """Cycles that each rise linearly from start to end, and then stay at end.

    Args:
        start: the weight at the beginning of each cycle.
        end: the weight that each cycle reaches, and from step ``steps`` on.
        steps: the number of training steps of all cycles.
        cycles: the number of cycles.
        ramp: the fraction of a cycle in which the weight rises, in (0, 1].

    Raises:
        ValueError: if ``cycles`` is below 1 or ``ramp`` is not in (0, 1].

    References:
        Fu et al. (2019), Cyclical annealing schedule, equations 6 and 7.

    Example:
        >>> beta = CyclicSchedule(0.0, 1.0, 400, cycles=4, ramp=0.5)
        >>> [beta(step) for step in (0, 25, 50, 99, 100)]
        [0.0, 0.5, 1.0, 1.0, 0.0]
    """

    _options = ("cycles", "ramp")

    def __init__(
        self,
        start: int | float,
        end: int | float,
        steps: int,
        *,
        cycles: int = 4,
        ramp: int | float = 0.5,
    ) -> None:
        super().__init__(start, end, steps)
        self.cycles = check_positive_int("cycles", cycles)
        if not 0 < ramp <= 1:
            raise ValueError(f"ramp must be a fraction of a cycle, in (0, 1], got {ramp}")
        self.ramp = float(ramp)

    def between(self, fraction: float) -> float:
        """Return the weight within the current cycle."""
        within = fraction * self.cycles % 1.0
        return self.start + min(within / self.ramp, 1.0) * (self.end - self.start)


@final
class SaturatingSchedule(AbstractSchedule):
    """An exponential approach to the end, fast at first: the KL warm-up of ladder autoencoders.

        start + (end - start) (1 - exp(-step / time))

    It never quite arrives: at step ``steps`` the remaining (end - start) exp(-steps / time) is
    added at once.

    Args:
        start: the weight at step 0.
        end: the limit, which is the weight from step ``steps`` on.
        steps: the step at which the approach ends.
        time: time constant of the approach, in training steps; by default a tenth of ``steps``,
            which leaves exp(-10) = 0.00005 of the way to the last step.

    Raises:
        ValueError: if ``time`` is not positive.

    References:
        Zhao, Song, Ermon (2017), Learning hierarchical features from generative models: in the
        released code, beta = 1 - exp(-step / 2000).

    Example:
        >>> beta = SaturatingSchedule(0.0, 1.0, 20_000)
        >>> beta, round(beta(2000), 4), beta(20_000)
        (SaturatingSchedule(0, 1, 20000, time=2000), 0.6321, 1.0)
    """

    _options = ("time",)

    def __init__(
        self, start: int | float, end: int | float, steps: int, *, time: int | float | None = None
    ) -> None:
        super().__init__(start, end, steps)
        self.time = check_positive("time", steps / 10 if time is None else time)

    def between(self, fraction: float) -> float:
        """Return the weight after a fraction of the steps."""
        done = -math.expm1(-fraction * self.steps / self.time)
        return self.start + done * (self.end - self.start)


SCHEDULES: dict[str, type[AbstractSchedule]] = {
    "cosine": CosineSchedule,
    "cyclic": CyclicSchedule,
    "delayed": DelayedSchedule,
    "exponential": ExponentialSchedule,
    "linear": LinearSchedule,
    "saturating": SaturatingSchedule,
}
"""The schedules by name."""


def combined(formula: str, function: Callable[..., float], *weights: Weight) -> Weight:
    """Return a function of weights as a weight; a number if all are numbers.

    Args:
        formula: format string of the function, with a place for each weight.
        function: the function of the weights' values.
        weights: numbers, schedules or functions of the step.

    Example:
        >>> combined("{} - {}", lambda a, b: a - b, 6.0, 1.0)
        5.0
        >>> weight = combined("{} - {}", lambda a, b: a - b, LinearSchedule(1.0, 6.0, 10), 1.0)
        >>> weight, weight(5)
        (LinearSchedule(1, 6, 10) - 1.0, 2.5)
    """
    if not any(callable(weight) for weight in weights):
        return function(*weights)
    return _Combined(formula, function, weights)


class _Combined:
    """A function of weights, at least one of which has a schedule."""

    def __init__(
        self, formula: str, function: Callable[..., float], weights: tuple[Weight, ...]
    ) -> None:
        self._formula, self._function, self._weights = formula, function, weights
        lengths = [weight.steps for weight in weights if hasattr(weight, "steps")]
        if lengths:
            self.steps = max(lengths)

    def __call__(self, step: int) -> float:
        return self._function(*(w(step) if callable(w) else w for w in self._weights))

    def __repr__(self) -> str:
        return self._formula.format(*map(described, self._weights))


def described(weight: Any) -> Any:
    """Return a number as it is, and a function as a text that is the same in every process."""
    if not callable(weight):
        return weight
    if isinstance(weight, functools.partial):
        inner = [*map(described, weight.args)]
        named = {name: described(value) for name, value in weight.keywords.items()}
        return f"partial({described(weight.func)}, {inner}, {named})"
    if hasattr(weight, "__qualname__"):
        return weight.__qualname__
    kind: Any = type(weight)
    return repr(weight) if kind.__repr__ is not object.__repr__ else kind.__qualname__


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
        weights = {k: described(w) for k, w in self._weights.items()}
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
