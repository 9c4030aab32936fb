"""What ``dpvae reproduce table1`` and ``figures`` share: amounts, overrides, checks of runs."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from jsonargparse import Namespace

from pyro_dpvae._checks import check_choice, check_positive_int
from pyro_dpvae._devices import choose_device
from pyro_dpvae.cli.jobs import Job, default_jobs
from pyro_dpvae.cli.options.train import parsed
from pyro_dpvae.cli.updates import resolve_rate
from pyro_dpvae.reproduction import BUDGETS, Budget
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.runs.changes import changes

__all__ = [
    "at_once_of",
    "budget_of",
    "check_arguments",
    "check_runs",
    "overrides_of",
    "place_of",
]

# What an override may not be: what the study compares, or has from options of its own; the rest
# is where and how a command works.
_OWN = frozenset(
    {"prior", "recipe", "data", "steps", "epochs", "seed", "root", "device"}
    | {"out", "resume", "config", "checkpoint", "download", "override", "help", "print_config"}
)
_REGULARIZER = ("objective", "objective.name")
_PLACE = frozenset({"root", "device", "out", "workers", "resume", "checkpoint", "download"})


def place_of(options: Namespace) -> tuple[str, ...]:
    """Return the arguments of runs for where they are, from the options of a study's place."""
    root = () if options.root is None else ("--root", options.root)
    return ("--device", options.device, *root)


def at_once_of(options: Namespace) -> int:
    """Return how many runs there are at a time: as asked, or as many as the device takes.

    Raises:
        ValueError: if it is not positive.
    """
    at_once = default_jobs(choose_device(options.device)) if options.jobs is None else options.jobs
    return check_positive_int("jobs", at_once)


def budget_of(options: Namespace) -> Budget:
    """Return the budget that is named, or the usual one of the device."""
    usual = "hour" if choose_device(options.device).type == "cpu" else "paper"
    return BUDGETS[check_choice("budget", options.budget or usual, BUDGETS)]


def overrides_of(
    options: Namespace, usual: Mapping[str, Any], before: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return the overrides of a study: a budget's, then those given; or what was asked before.

    Args:
        options: parsed, with ``budget`` and ``override``.
        usual: those of the budget.
        before: what was asked in the study's folder.

    Raises:
        ValueError: if one is of what the study compares or has from its own options.
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
            f"an override must be of what all recipes may have alike, got {one!r}; priors and "
            "regularizers are what is compared, and data, steps, seeds and place are options of "
            "the command itself: leave it out"
        )


def check_arguments(jobs: Sequence[Job]) -> None:
    """Refuse what the parser of ``dpvae train`` refuses of all jobs before any is done.

    Raises:
        UsageError: if the arguments of a job are not those of a run.
    """
    for job in jobs:
        _configuration(job.train)


def check_runs(jobs: Sequence[Job]) -> None:
    """Refuse runs that are of anything else than what is asked.

    A run may have been trained when its recipe had other numbers, or changed by another command
    since; it would stand under a name that is not its own.

    Raises:
        ValueError: if the run of a job has another configuration, with what differs.
    """
    for job in jobs:
        asked, config = _configuration(job.train), _config(RunFolder(job.run))
        # By default what suits the data; the run has what that is.
        left_out = _PLACE if asked["preprocessing"] else _PLACE | {"preprocessing"}
        # An entry that is null counts as none, as for the identity of a run.
        before, after = (
            {key: value for key, value in one.items() if not (value is None or key in left_out)}
            for one in (asked if config is None else config, asked)
        )
        if differing := ", ".join(changes(before, after)):
            raise ValueError(
                f"a run of a study must be what is asked for now, and {job.run} would change "
                f"{differing}; remove that folder, or name another with --out"
            )


def _config(run: RunFolder) -> dict[str, Any] | None:
    """Return the configuration of a run; None where none is, or is damaged: its job says so."""
    with suppress(ValueError):
        return run.config if run.exists else None
    return None


def _configuration(train: Sequence[str]) -> dict[str, Any]:
    """Return the configuration that the arguments of a run come to."""
    at = train.index("--seed")
    # Seeds of a recipe are parsed together: it takes a tenth of a second.
    whole = json.loads(_without_seed((*train[:at], *train[at + 2 :])))
    return {**whole, "seed": int(train[at + 1])}


@cache
def _without_seed(train: tuple[str, ...]) -> str:
    options = parsed(train)
    resolve_rate(options, options["steps"])
    return json.dumps(options)
