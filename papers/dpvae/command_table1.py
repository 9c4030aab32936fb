"""The target ``table1``: train, measure and compare the models of the paper's Table 1."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from papers.dpvae.budgets import AUTHORS_CODE, steps_of
from papers.dpvae.jobs import Failure, Job, run_jobs, seconds_of
from papers.dpvae.markdown import as_markdown
from papers.dpvae.options import PROGRAM
from papers.dpvae.recipe_runs import recipe_arguments
from papers.dpvae.studies import (
    at_once_of,
    budget_of,
    check_arguments,
    check_runs,
    overrides_of,
    place_of,
)
from papers.dpvae.study import Study, alone, recalled, remember, run_path
from papers.dpvae.table import table_of
from papers.dpvae.text import as_text
from papers.dpvae.words import counted
from pyro_dpvae._checks import check_choice
from pyro_dpvae._files import write_whole
from pyro_dpvae.cli.devices import chosen_device
from pyro_dpvae.data import DataSet, load
from pyro_dpvae.features.base import inception_weights
from pyro_dpvae.recipes import DPVAE_DATA_SETS, REGULARIZERS
from pyro_dpvae.runs.changes import option

__all__ = ["main"]


def main(options: Namespace) -> int:
    """Train, measure and write the table; returns the exit status, 1 if a run failed."""
    check_choice("data", options.data, DPVAE_DATA_SETS)
    source = options.source or options.data
    data = load(source, root=options.root, download=options.download)
    out = Path(options.out or f"reproductions/table1-{Path(source).stem}")
    study = _study(options, data, recalled(out))
    at_once = at_once_of(options)
    jobs = _jobs(study, out, options)
    check_arguments(jobs)
    device = chosen_device(options.device)
    with alone(out):
        remember(study.as_dict(), out)
        check_runs(jobs)
        return _reproduced(study, out, jobs, at_once, str(device))


def _reproduced(study: Study, out: Path, jobs: Sequence[Job], at_once: int, device: str) -> int:
    print(_budget(study, len(jobs), at_once, device), file=sys.stderr)
    try:
        failures = run_jobs(jobs, at_once=at_once, out=out)
    except KeyboardInterrupt as error:
        error.add_note(f"{out} keeps the finished work; the same command continues")
        raise
    table = table_of(study, out)
    command = f"{PROGRAM} table1 {shlex.join(_command(study))}"
    write_whole(out / "table.json", json.dumps(table, indent=2, allow_nan=False).encode())
    write_whole(out / "table.md", as_markdown(table, command).encode())
    print(as_text(table))
    print(_ending(jobs, failures, out))
    return 1 if failures else 0


def _study(options: Namespace, data: DataSet, before: Mapping[str, Any]) -> Study:
    """Build the study.

    Options given now win; the rest comes from study.json of an earlier command, or from the
    budget.
    """
    budget = budget_of(options)
    own = options.variant == AUTHORS_CODE  # whose learning rates are among what it compares
    features = _features(options, data, before)
    groups = ["skl", "leakage", "nll", features]
    if data.train_labels is not None and data.test_labels is not None:
        groups.append("probe")
    chosen = options.regularizers
    kept = before if options.budget is None else {}
    usual = {"steps": budget.steps, "seeds": budget.seeds, **budget.measured}
    usual |= {key: kept[key] for key in ("steps", "seeds") if key in kept}
    usual |= kept.get("evaluation", {})
    amount = {key: one if options[key] is None else options[key] for key, one in usual.items()}
    return Study(
        data=options.data,
        variant=options.variant,
        regularizers=tuple(REGULARIZERS if chosen is None else _listed(chosen)),
        steps=amount.pop("steps"),
        seeds=amount.pop("seeds"),
        overrides=overrides_of(options, {} if own else budget.overrides, before),
        evaluation=amount,
        features=features,
        groups=tuple(groups),
        source=options.source,
    )


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",")]


def _features(options: Namespace, data: DataSet, before: Mapping[str, Any]) -> str:
    """Return the features that compare samples with data: those of an earlier command, or FID's.

    Without the weights of FID's network these are the features of a domain network.
    """
    if not data.is_images:
        return "distance"
    remembered = before.get("features")
    if remembered == "domain" and options.inception is None:
        return "domain"
    try:
        inception_weights(options.inception, download=options.download)
    except FileNotFoundError:
        if remembered == "fid" or options.inception is not None or data.train_labels is None:
            raise
        return "domain"
    return "fid"


def _jobs(study: Study, out: Path, options: Namespace) -> list[Job]:
    # All recipes of a seed before the next seed: a user who stops early has a whole table.
    return [
        _job(study, out, options, recipe, seed)
        for seed in range(study.seeds)
        for recipe in study.recipes
    ]


def _job(study: Study, out: Path, options: Namespace, recipe: str, seed: int) -> Job:
    steps = steps_of(recipe, study.steps)
    evaluate = {
        "--metrics": ",".join(study.groups),
        **{option(name): str(count) for name, count in study.evaluation.items()},
    }
    if options.inception is not None:
        evaluate["--inception"] = options.inception
    return Job(
        name=f"{recipe}/seed-{seed}",
        run=run_path(out, recipe, seed),
        steps=steps,
        train=(
            *recipe_arguments(recipe, seed=seed, steps=steps, overrides=study.overrides),
            *(() if study.source is None else ("--data", study.source)),
        ),
        evaluate=_flat(evaluate),
        numbers=study.numbers,
        place=place_of(options),
    )


def _flat(options: dict[str, str]) -> tuple[str, ...]:
    return tuple(part for pair in options.items() for part in pair)


def _command(study: Study) -> list[str]:
    """Return the options that request a study, independently of the numbers of budgets."""
    arguments = ["--data", study.data, "--variant", study.variant, "--budget", "paper"]
    if study.source is not None:
        arguments += ["--source", study.source]
    if study.regularizers != tuple(REGULARIZERS):
        arguments += ["--regularizers", ",".join(study.regularizers)]
    arguments += ["--steps", str(study.steps), "--seeds", str(study.seeds)]
    for one in study.overrides:
        arguments += ["--override", one]
    for name, count in study.evaluation.items():
        arguments += [option(name), str(count)]
    return arguments


def _budget(study: Study, runs: int, at_once: int, device: str) -> str:
    numbers = ", ".join(f"{name} {count}" for name, count in study.evaluation.items())
    return (
        f"{counted(runs, 'run')} on {study.source or study.data}: {len(study.recipes)} recipes x "
        f"{counted(study.seeds, 'seed')}, "
        f"{study.steps} steps each, {at_once} at once on {device}\n"
        f"overrides: {', '.join(study.overrides) or 'none'}\n"
        f"measured: {', '.join(study.groups)}; {numbers}"
    )


def _ending(jobs: Sequence[Job], failures: Sequence[Failure], out: Path) -> str:
    times = seconds_of(out)
    taken = sum(sum(times.get(job.name, {}).values()) for job in jobs)
    lines = [f"{counted(len(jobs), 'run')} took {taken / 60:.1f} processor minutes"]
    lines += [
        f"failed: {one.name}, exit status {one.status}, log {one.log}\n  {one.reason}"
        for one in failures
    ]
    return "\n".join([*lines, f"written to {out}: table.md and table.json"])
