"""Checks of arguments; messages give the rule, the value, and a remedy."""

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import wraps
from typing import Any

__all__ = [
    "check_choice",
    "check_kind",
    "check_positive",
    "check_positive_int",
    "check_repeated",
    "check_seed",
    "check_shape",
    "check_trailing_shape",
    "hint_at_fields",
    "nearest",
    "plain_number",
]


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint at the option that may be meant, or nothing.

    Example:
        >>> nearest("stpes", ["seed", "steps"])
        ' (did you mean steps?)'
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def hint_at_fields(cls: type) -> type:
    """Make a dataclass name its nearest field when it refuses an argument; a decorator."""
    init = cls.__init__  # type: ignore[misc]  # the one that dataclass has written

    @wraps(init)
    def hinting(self: Any, *arguments: Any, **options: Any) -> None:
        known = [one.name for one in fields(cls)]
        for name in options:
            if name not in known:
                raise TypeError(f"{cls.__name__} has no {name!r}{nearest(name, known)}")
        init(self, *arguments, **options)

    cls.__init__ = hinting  # type: ignore[misc]
    return cls


def check_kind(name: str, value: object, kinds: type | tuple[type, ...], *, rule: str) -> None:
    """Raise if an argument has the wrong class.

    Args:
        name: name of the argument.
        value: its value.
        kinds: the allowed classes.
        rule: what it must be, and what to do with other objects.

    Raises:
        TypeError: with the rule and the class of the value.
    """
    if not isinstance(value, kinds):
        raise TypeError(f"{name} must be {rule}; got {type(value).__name__}")


def plain_number(value: Any) -> Any:
    """Return a number of NumPy or torch as one of Python; anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def check_positive_int(name: str, value: object) -> int:
    """Return ``value`` as an int if it is an integer of at least 1."""
    value = plain_number(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


def check_seed(seed: int) -> int:
    """Return ``seed`` as an int if all random generators accept it."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be from 0 to {2**32 - 1}, got {seed}")
    if int(seed) != seed:
        raise ValueError(f"seed must be a whole number, got {seed}")
    return int(seed)


def check_positive(name: str, value: int | float) -> float:
    """Return ``value`` as a float if it is positive and finite."""
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be positive and finite, got {value}")
    return float(value)


def check_shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Return ``shape`` as a tuple if it is not empty and all sizes are positive integers."""
    shape = tuple(shape)
    if not shape:
        raise ValueError(f"{name} must have at least one dimension, got ()")
    for size in shape:
        check_positive_int(f"every dimension of {name} {shape}", size)
    return shape


def check_trailing_shape(name: str, got: Sequence[int], shape: Sequence[int]) -> None:
    """Raise if the shape of a tensor does not end in ``shape``."""
    got = tuple(got)
    if got[max(len(got) - len(shape), 0) :] != tuple(shape):
        expected = ", ".join(map(str, shape))
        raise ValueError(
            f"expected {name} of shape (..., {expected}), got {got}; reshape them or build the "
            "likelihood for their shape"
        )


def check_choice(name: str, value: str, choices: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``choices``."""
    choices = sorted(choices)
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
    return value


def check_repeated(name: str, value: int) -> int:
    """Return a number of samples that allows a standard error.

    Raises:
        ValueError: if it is below 2.
    """
    if check_positive_int(name, value) < 2:
        raise ValueError(f"{name} must be at least 2 for a standard error, got 1")
    return value
