"""The settings of a reproduction, and the file study.json that remembers them."""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pyro_dpvae._checks import check_choice, check_positive_int, check_repeated
from pyro_dpvae._files import write_whole
from pyro_dpvae.evaluation import EvaluationConfig, numbers_of
from pyro_dpvae.recipes import DPVAE_DATA_SETS, REGULARIZERS, dpvae_recipe
from pyro_dpvae.runs.lock import locked

__all__ = ["FEATURES", "Study", "alone", "recalled", "remember", "run_path"]

FEATURES = ("fid", "domain", "distance")
"""How samples are compared with data: by Inception features, by those of a domain network, or, for
vectors, by the distance of decoded samples to the data."""

_FILE = "study.json"


@dataclass(frozen=True, kw_only=True)
class Study:
    """The settings of Table 1: pairs of models, with and without the decoupled prior.

    Attributes:
        data: the data set.
        variant: the variant of the recipes.
        regularizers: the regularizers of the pairs.
        steps: training steps of each run.
        seeds: number of seeds, counted from 0.
        overrides: training options that replace those of the recipes, each ``key=value``.
        evaluation: numbers of samples and items in the evaluation.
        features: one of ``FEATURES``.
        groups: the groups of metrics to measure.
        source: the name or file of other data on which the recipes of ``data`` train.
    """

    data: str
    variant: str
    regularizers: tuple[str, ...]
    steps: int
    seeds: int
    overrides: tuple[str, ...]
    evaluation: Mapping[str, int]
    features: str
    groups: tuple[str, ...]
    source: str | None = None

    def __post_init__(self) -> None:
        check_choice("data", self.data, DPVAE_DATA_SETS)
        for regularizer in self.regularizers:
            check_choice("regularizers", regularizer, REGULARIZERS)
        if not self.regularizers or len(set(self.regularizers)) < len(self.regularizers):
            raise ValueError(
                f"regularizers must be some, each named once, got {list(self.regularizers)}; "
                f"they are {', '.join(REGULARIZERS)}"
            )
        check_positive_int("steps", self.steps)
        check_positive_int("seeds", self.seeds)
        for name, count in self.evaluation.items():
            check_repeated(name, count)

    def recipe(self, regularizer: str, *, decoupled: bool) -> str:
        """Return the name of the recipe of a regularizer and a prior."""
        variant: Any = self.variant
        return dpvae_recipe(self.data, regularizer, decoupled=decoupled, variant=variant)

    @property
    def recipes(self) -> list[str]:
        """The recipes in the order of the table."""
        return [
            self.recipe(regularizer, decoupled=decoupled)
            for regularizer in self.regularizers
            for decoupled in (False, True)
        ]

    @property
    def numbers(self) -> dict[str, dict[str, Any]]:
        """By group of metrics, the settings to measure them with."""
        counts: dict[str, Any] = dict(self.evaluation)
        config = EvaluationConfig(**counts)
        return {group: numbers_of(group, config) for group in self.groups}

    def as_dict(self) -> dict[str, Any]:
        """Return the study as JSON holds it."""
        content: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return content


def run_path(out: Path, recipe: str, seed: int) -> Path:
    """Return the run folder of a recipe and a seed in a study's folder."""
    return out / "runs" / recipe / f"seed-{seed}"


def alone(out: Path) -> AbstractContextManager[None]:
    """Lock the folder of a study for this command.

    Raises:
        BlockingIOError: on entry, if another command holds it.
    """
    return locked(out, "a study is made by one command at a time, and another one works")


def recalled(out: Path) -> dict[str, Any]:
    """Return the settings in the study.json of a folder; empty if there is none.

    Raises:
        ValueError: if the file is damaged.
    """
    path = out / _FILE
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} must hold the settings of a study, and is damaged: {error}; restore it, or "
            "name another folder with --out"
        ) from error


def remember(asked: Mapping[str, Any], out: Path) -> None:
    """Write settings to study.json in a folder, or compare them with those that are there.

    Args:
        asked: all settings that runs and measurements depend on, as JSON holds them.
        out: the folder.

    Raises:
        ValueError: if the folder has other settings, unless they have fewer seeds.
    """
    if before := recalled(out):
        differing = [
            f"{key} from {before.get(key)!r} to {asked.get(key)!r}"
            for key in dict.fromkeys([*before, *asked])
            if before.get(key) != asked.get(key)
            and not (key == "seeds" and asked.get(key, 0) > before.get(key, 0))
        ]
        if differing:
            raise ValueError(
                f"a study continues with the same settings, or with more seeds, and {out} would "
                f"change {', '.join(differing)}; give the same options, or name another folder "
                "with --out"
            )
    write_whole(out / _FILE, json.dumps(asked, indent=2).encode())
