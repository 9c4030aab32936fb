"""What of a configuration a run may go on with changed, and what two configurations differ in."""

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["CHANGEABLE", "changes", "option"]

CHANGEABLE = frozenset(
    {
        "checkpoint_every",
        "clip_norm",
        "data",
        "device",
        "epochs",
        "evaluate_every",
        "learning_rate",
        "learning_rate_schedule",
        "log_every",
        "nonfinite",
        "out",
        "patience",
        "root",
        "steps",
        "tensorboard",
        "warmup_steps",
        "workers",
    }
)
"""Entries of a configuration that a run may go on with changed, and is the same run."""


def changes(old: Mapping[str, Any], new: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """Yield what differs of two configurations, by option; of another part, its name alone."""
    names = old.get("name"), new.get("name")
    for key in ["name"] if names[0] != names[1] else dict.fromkeys([*old, *new]):
        one, other = old.get(key), new.get(key)
        path = f"{within}.{key}" if within else key
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from changes(one, other, path)
        elif one != other:
            yield f"{option(path)} from {one!r} to {other!r}"


def option(path: str) -> str:
    """Return an entry's path as its option is spelled."""
    first, dot, rest = path.removesuffix(".name").partition(".")
    return f"--{first.replace('_', '-')}{dot}{rest}"
