"""Alternating measurement: every round times each variant once, in an order of its own."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

__all__ = ["TimesItself", "over", "ratios", "time_of"]


@runtime_checkable
class TimesItself(Protocol):
    """A step that knows how to be timed, because another process takes it."""

    def time(self, seconds: float) -> float:
        """Return the seconds of a step, from about as many as fill the given time."""


def ratios(
    variants: Mapping[str, Callable[[], object]],
    *,
    base: str,
    rounds: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, dict[str, Any]]:
    """Return the time of each variant over that of the base in the same round.

    Args:
        variants: what is timed, by name; each call is one step. Steps that ``TimesItself``
            describes are timed by themselves.
        base: the variant that the others are divided by.
        rounds: how many.
        seconds: how long each variant is repeated in a round.
        clock: what time is, in seconds.

    Returns:
        By name: the median ``ratio`` with the quartiles ``q1`` and ``q3``, the median
        ``milliseconds`` of a step, and those of each round.
    """
    for step in variants.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in variants}
    order = list(variants)
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            times[name].append(time_of(variants[name], seconds, clock))
    return {
        name: {
            **over(values, times[base]),
            "milliseconds": round(1000 * float(np.median(values)), 3),
            "rounds": [round(1000 * value, 3) for value in values],
        }
        for name, values in times.items()
    }


def over(values: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """Return the median of the ratios of two sequences, and their quartiles."""
    quartiles = np.percentile(np.array(values) / np.array(base), [25, 50, 75])
    q1, ratio, q3 = (round(float(value), 3) for value in quartiles)
    return {"ratio": ratio, "q1": q1, "q3": q3}


def time_of(step: Callable[[], object], seconds: float, clock: Callable[[], float]) -> float:
    """Return the time of a step, repeated for so many seconds."""
    if isinstance(step, TimesItself):
        return step.time(seconds)
    count, start = 0, clock()
    while True:
        step()
        count += 1
        elapsed = clock() - start
        if elapsed > seconds:
            return elapsed / count
