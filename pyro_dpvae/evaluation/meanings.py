"""Metrics, their settings, and figures in words, from meanings.toml."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, final

__all__ = ["SECTIONS", "Meaning", "figure_meaning", "meaning_of", "setting_meaning"]

SECTIONS: dict[str, tuple[str, ...]] = {
    "Likelihood": ("elbo", "nll"),
    "Prior and aggregate posterior": ("skl", "leakage", "split"),
    "Samples": ("distance", "domain", "fid"),
    "Representation": ("probe", "layers", "clusters", "layer-clusters", "disentanglement"),
}
"""The groups of metrics under the headings of a report, in the order of reading."""


@final
@dataclass(frozen=True)
class Meaning:
    """A metric in words.

    Attributes:
        title: its name in prose.
        text: its definition, in one line.
        better: ``"lower"`` or ``"higher"``; empty if neither is better.
        unit: the unit of its values; empty if they have none.
    """

    title: str
    text: str = ""
    better: str = ""
    unit: str = ""


def meaning_of(metric: str) -> Meaning:
    """Return the meaning of a metric; an unknown metric has its name as title.

    Example:
        >>> meaning = meaning_of("leakage_-30")
        >>> meaning.title, meaning.better, meaning.unit
        ('leakage, τ = −30', 'lower', 'nats')
    """
    for unit, meanings in _table()["metrics"].items():
        if (found := _match(metric, meanings)) is not None:
            entry, parts = found
            title, text = (entry[key].format(*parts) for key in ("title", "text"))
            return Meaning(title, text, entry.get("better", ""), unit)
    return Meaning(metric.replace("_", " "))


def figure_meaning(name: str) -> str:
    """Return how to read a figure, in a sentence or two; empty for an unknown figure.

    Example:
        >>> figure_meaning("clusters_layer_2")
        'A row for each cluster of layer 2: samples that differ in the other layers.'
    """
    found = _match(name, _table()["figures"])
    return "" if found is None else str(found[0]).format(*found[1])


def setting_meaning(name: str) -> str:
    """Return the meaning of a setting of metrics; empty for an unknown setting.

    Example:
        >>> setting_meaning("components")
        'normal distributions in the mixture q(z), or in q(z | x)'
    """
    return str(_table()["settings"].get(name, ""))


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads((files("pyro_dpvae.evaluation") / "meanings.toml").read_text("utf-8"))


def _match(name: str, entries: dict[str, Any]) -> tuple[Any, list[str]] | None:
    """Return the first entry whose pattern fits, with what its groups match, to be read."""
    for pattern, entry in entries.items():
        if found := re.fullmatch(pattern, name):
            return entry, [
                part.replace("_", " ").replace("-", "\N{MINUS SIGN}") for part in found.groups()
            ]
    return None
