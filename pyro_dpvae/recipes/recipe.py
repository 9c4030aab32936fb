"""``Recipe``: the options of a system of a paper, and the source of each."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.errors import ConfigError

__all__ = ["Recipe", "published"]


@dataclass(frozen=True)
class Recipe:
    """A system of a paper, as options.

    Attributes:
        title: a line that describes the system.
        options: the options of ``RunConfig`` that the recipe sets.
        sources: the source of each option's value, by dotted option, or by part for all options
            of the part.
        unknown: likewise for options that no source gives: the choice, and the reason for it.

    Example:
        >>> recipe = Recipe("a beta-VAE", {"objective": {"name": "beta", "beta": 4.0}})
        >>> dict(recipe.numbers())
        {'objective.name': 'beta', 'objective.beta': 4.0}
    """

    title: str
    options: Mapping[str, Any]
    sources: Mapping[str, str] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)

    def numbers(self) -> Iterator[tuple[str, Any]]:
        """Yield each option with its value, options of parts by dotted names."""
        yield from _flat(self.options)

    def origin(self, option: str) -> tuple[str, bool]:
        """Return the origin of an option's value, and whether it is a source.

        Raises:
            KeyError: if the recipe has no such option.
        """
        for key in (option, *_parts_of(option)):
            for origins, known in ((self.sources, True), (self.unknown, False)):
                if key in origins:
                    return origins[key], known
        raise KeyError(option)

    def at(self, steps: int) -> "Recipe":
        """Return the recipe with another number of steps, and its schedules in proportion.

        Args:
            steps: the number of training steps.

        Raises:
            ValueError: if the number is not positive, or the recipe has no number of steps.
        """
        check_positive_int("steps", steps)
        whole = self.options.get("steps")
        if whole is None:
            raise ConfigError(
                f"a recipe in proportion needs a number of steps, and that of {self.title!r} has "
                "none; give its schedules by themselves"
            )
        options = json.loads(json.dumps(dict(self.options)))
        for schedule in options.get("objective", {}).get("schedule", {}).values():
            schedule["steps"] = max(round(schedule["steps"] * steps / whole), 1)
        return replace(self, options={**options, "steps": steps})

    def with_prior(self, title: str, **prior: Any) -> "Recipe":
        """Return the recipe with another prior, that of the dpVAE paper."""
        origins = (
            {key: text for key, text in known.items() if key.partition(".")[0] != "prior"}
            for known in (self.sources, self.unknown)
        )
        sources, unknown = origins
        return Recipe(
            title,
            {**self.options, "prior": prior},
            {**sources, "prior": "Bhalodia, Lee, Elhabian (2020), section 4.2"},
            unknown,
        )


def published(table: str) -> dict[str, Any]:
    """Return a table of ``published.toml``, the numbers of papers and of their code."""
    return _tables()[table]


@cache
def _tables() -> dict[str, dict[str, Any]]:
    return tomllib.loads((files("pyro_dpvae.recipes") / "published.toml").read_text())


def _flat(options: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{within}{key}.")
        else:
            yield f"{within}{key}", value


def _parts_of(option: str) -> Iterator[str]:
    """Yield the parts that contain an option, starting from the innermost."""
    while "." in option:
        option = option.rpartition(".")[0]
        yield option
