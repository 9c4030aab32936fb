"""Differences of two configurations, and the options that may change when a run is resumed."""

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["ADDED", "CHANGEABLE", "changes", "fixed_entries", "option"]

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
"""Entries of a configuration that may change when a run is resumed."""

ADDED: Mapping[str, Any] = {"optimizer": "adam"}
"""Entries that older runs lack, with the value by which these runs were trained."""


def fixed_entries(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that identify a run.

    Null counts as absent, and so does the value of an entry that older runs lack.
    """
    return {
        key: value
        for key, value in config.items()
        if not (key in CHANGEABLE or value is None or ADDED.get(key) == value)
    }


def changes(old: Mapping[str, Any], new: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """Yield the differences of two configurations, by option; of a renamed part, only the name."""
    names = old.get("name"), new.get("name")
    for key in ["name"] if names[0] != names[1] else dict.fromkeys([*old, *new]):
        one, other = old.get(key), new.get(key)
        path = f"{within}.{key}" if within else key
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from changes(one, other, path)
        elif one != other:
            yield f"{option(path)} from {one!r} to {other!r}"


def option(path: str) -> str:
    """Return the option that sets an entry, given its path."""
    first, dot, rest = path.removesuffix(".name").partition(".")
    return f"--{first.replace('_', '-')}{dot}{rest}"
