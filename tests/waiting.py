"""Waiting for a condition, never for a span of time, and the one limit that ends a hang."""

import time
from collections.abc import Callable

__all__ = ["TIME_LIMIT", "wait_until"]

TIME_LIMIT = 600
"""Seconds after which a test counts as hanging. No test that passes comes near it, even on a
machine that is busy with other work, so that no result depends on speed."""


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; fails if that takes the time limit."""
    end = time.monotonic() + TIME_LIMIT
    while not condition():
        assert time.monotonic() < end, f"the condition does not hold after {TIME_LIMIT} s"
        time.sleep(0.005)
