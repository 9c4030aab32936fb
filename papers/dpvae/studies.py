"""What the targets ``table1`` and ``figures`` share: budgets, overrides, checks of runs."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from jsonargparse import Namespace

from papers.dpvae.budgets import BUDGETS, Budget
from papers.dpvae.jobs import Job, default_jobs
from pyro_dpvae._checks import check_choice, check_positive_int
from pyro_dpvae._devices import choose_device
from pyro_dpvae.cli.train_options import parsed
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.runs.changes import ADDED, changes

__all__ = [
    "at_once_of",
    "budget_of",
    "check_arguments",
    "check_runs",
    "overrides_of",
    "place_of",
]

# Options that no override may change: the study compares them, or has options of its own for
# them, or they say where and how a command works.
_OWN = frozenset(
    {"prior", "recipe", "data", "steps", "epochs", "seed", "root", "device"}
    | {"out", "resume", "config", "checkpoint", "download", "override", "help", "print_config"}
)
_REGULARIZER = ("objective", "objective.name")
_PLACE = frozenset({"root", "device", "out", "workers", "resume", "checkpoint", "download"})


def place_of(options: Namespace) -> tuple[str, ...]:
    """Return the arguments of a run that say where it trains and where its data are."""
    root = () if options.root is None else ("--root", options.root)
    return ("--device", options.device, *root)


def at_once_of(options: Namespace) -> int:
    """Return the number of processes at once: that of ``--jobs``, or what suits the device.

    Raises:
        ValueError: if it is not positive.
    """
    at_once = default_jobs(choose_device(options.device)) if options.jobs is None else options.jobs
    return check_positive_int("jobs", at_once)


def budget_of(options: Namespace) -> Budget:
    """Return the budget of ``--budget``, or the default of the device."""
    usual = "hour" if choose_device(options.device).type == "cpu" else "paper"
    return BUDGETS[check_choice("budget", options.budget or usual, BUDGETS)]


def overrides_of(
    options: Namespace, usual: Mapping[str, Any], before: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return the overrides of a study: the budget's, then those given; or those of before.

    Args:
        options: parsed, with ``budget`` and ``override``.
        usual: the overrides of the budget.
        before: the content of study.json in the output folder, if there is one.

    Raises:
        ValueError: if an override changes what the study compares, or has an option of its own.
    """
    given = tuple(options.override)
    for one in given:
        _check_override(one)
    kept = tuple(before.get("overrides", ()))
    if options.budget is None and before and kept[len(kept) - len(given) :] == given:
        return kept
    return (*(f"{key}={value}" for key, value in usual.items()), *given)


def _check_override(one: str) -> None:
    key, equals, _ = one.partition("=")
    key = key.strip().lstrip("-").replace("-", "_")
    if not (key and equals):
        raise ValueError(f"an override must be KEY=VALUE, got {one!r}; give batch_size=50")
    if key.partition(".")[0] in _OWN or key in _REGULARIZER:
        raise ValueError(
            f"an override must be an option that may be the same in all recipes, got {one!r}; the "
            "study compares priors and regularizers, and the command has options of its own for "
            "data, steps, seeds and folders: leave the override out"
        )


def check_arguments(jobs: Sequence[Job]) -> None:
    """Check the training arguments of all jobs before the first one starts.

    Raises:
        UsageError: if the parser of ``dpvae train`` refuses the arguments of a job.
    """
    for job in jobs:
        _configuration(job.train)


def check_runs(jobs: Sequence[Job]) -> None:
    """Refuse runs in the output folder whose configuration is not the requested one.

    A run may have been trained when its recipe had other numbers, or changed by another command
    since.

    Raises:
        ValueError: if the run of a job has another configuration, with each difference.
    """
    for job in jobs:
        asked, config = _configuration(job.train), _config(RunFolder(job.run))
        # Their defaults depend on the data; the configuration of a run holds the resolved values.
        resolved = {key for key in ("preprocessing", "batch_size") if not asked[key]}
        left_out = _PLACE | resolved
        # Null counts as absent, and older runs lack some entries, as for the identity of a run.
        before, after = (
            {
                key: value
                for key, value in {**ADDED, **one}.items()
                if not (value is None or key in left_out)
            }
            for one in (asked if config is None else config, asked)
        )
        if differing := ", ".join(changes(before, after)):
            raise ValueError(
                f"a run of a study must have the requested configuration, and {job.run} would "
                f"change {differing}; move that folder away, or name another with --out"
            )


def _config(run: RunFolder) -> dict[str, Any] | None:
    """Return the configuration of a run; None if there is none, or if its job will refuse it."""
    with suppress(ValueError):
        return run.config if run.exists else None
    return None


def _configuration(train: Sequence[str]) -> dict[str, Any]:
    """Return the configuration that training arguments resolve to."""
    at = train.index("--seed")
    # Seeds of a recipe are parsed together: it takes a tenth of a second.
    whole = json.loads(_without_seed((*train[:at], *train[at + 2 :])))
    return {**whole, "seed": int(train[at + 1])}


@cache
def _without_seed(train: tuple[str, ...]) -> str:
    config = parsed(train).config
    assert config.steps is not None
    return json.dumps(config.for_steps(config.steps).as_dict())
