"""The configurations of runs: what differs between them, and all that they have."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pyro_dpvae.report.markup import Markup, element
from pyro_dpvae.report.tables import table

__all__ = ["configuration_tables", "differing", "flat", "part"]

_DEFAULT = "\N{EN DASH}"  # of an option that a run does not have, or leaves open
_PLACES = ("out",)  # differ between any two runs


def flat(config: Mapping[str, Any], start: str = "") -> dict[str, str]:
    """Return options by their dotted names, with values as text.

    Example:
        >>> flat({"prior": {"name": "coupling", "blocks": 4}, "seed": 0, "root": None})
        {'prior.name': 'coupling', 'prior.blocks': '4', 'seed': '0', 'root': '–'}
    """
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{start}{key}.")
        elif isinstance(value, str):
            found[f"{start}{key}"] = value
        else:
            found[f"{start}{key}"] = _DEFAULT if value is None else json.dumps(value)
    return found


def part(config: Mapping[str, Any], kind: str) -> str:
    """Return the name of a part of a configuration."""
    value = config.get(kind)
    return str(value.get("name", _DEFAULT) if isinstance(value, Mapping) else value or _DEFAULT)


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the options in which configurations differ, but for where the runs lie."""
    options = [flat(config) for config in configs]
    names = dict.fromkeys(name for one in options for name in one)
    return [
        name
        for name in names
        if name not in _PLACES and len({one.get(name, _DEFAULT) for one in options}) > 1
    ]


def configuration_tables(configs: Sequence[Mapping[str, Any]], header: Sequence[str]) -> Markup:
    """Return what differs, if there are several, and a table to unfold of all options.

    Args:
        configs: of each run.
        header: what stands above the column of each.
    """
    options = [flat(config) for config in configs]
    names = list(dict.fromkeys(name for one in options for name in one))
    several = len(configs) > 1
    different = differing(configs)
    parts = []
    if several and different:
        rows = [_row(name, options, marked=True) for name in different]
        parts.append(table("What differs", ["option", *header], rows, class_="text"))
    elif several:
        parts.append(element("p", "The configurations of these runs are the same."))
    rest = [name for name in names if name not in different]
    title = "All other options" if different else "All options"
    rows = [_row(name, options, marked=False) for name in rest]
    full = table(title, ["option", *header], rows, class_="text")
    parts.append(element("details", element("summary", f"{title} ({len(rest)})"), full))
    return element("div", *parts)


def _row(name: str, options: Sequence[Mapping[str, str]], *, marked: bool) -> list[str]:
    values = [one.get(name, _DEFAULT) for one in options]
    cells: list[str] = [
        element("mark", value) if marked and value != values[0] else value for value in values
    ]
    return [element("code", name), *cells]
