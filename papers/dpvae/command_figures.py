"""The target ``figures``: draw the paper's figures, from runs of its recipes."""

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace

from papers.dpvae.budgets import AUTHORS_CODE, steps_of
from papers.dpvae.figures import FIGURES, SystemKey
from papers.dpvae.jobs import Job, run_jobs
from papers.dpvae.options import IMAGES, MOONS, PROGRAM
from papers.dpvae.recipe_runs import recipe_arguments
from papers.dpvae.studies import (
    at_once_of,
    budget_of,
    check_arguments,
    check_runs,
    overrides_of,
    place_of,
)
from papers.dpvae.study import alone, recalled, remember, run_path
from papers.dpvae.words import counted
from pyro_dpvae._bars import bar as progress_bar
from pyro_dpvae._checks import check_choice, check_positive_int
from pyro_dpvae._devices import choose_device
from pyro_dpvae.cli.devices import chosen_device
from pyro_dpvae.cli.drawing import save_figure
from pyro_dpvae.data import DataSet, load
from pyro_dpvae.evaluation import EvaluationConfig, Subject
from pyro_dpvae.recipes import RECIPES, open_run
from pyro_dpvae.runs import RunFolder

__all__ = ["main"]

Needs = Mapping[int, Mapping[SystemKey, str]]
"""By figure, the recipe of each of its systems."""


def main(options: Namespace) -> int:
    """Train missing runs and draw the figures; returns the exit status, 1 if a run failed."""
    needs = _needs(options)
    out = Path(options.out)
    asked = _asked(options, recalled(out))
    at_once = at_once_of(options)
    data = {
        name: load(name, root=options.root, download=options.download)
        for name in dict.fromkeys(RECIPES[recipe].options["data"] for recipe in _recipes(needs))
    }
    there = _runs_there(options, needs)
    jobs = [_job(recipe, asked, options) for recipe in _recipes(needs) if recipe not in there]
    check_arguments(jobs)
    chosen_device(options.device)
    with alone(out):
        if jobs:
            remember(asked, out)
            check_runs(jobs)
        print(_plan(jobs, there, asked, options), file=sys.stderr)
        try:
            failures = run_jobs(jobs, at_once=at_once, out=out)
        except KeyboardInterrupt as error:
            error.add_note(f"{out} keeps the trained runs; the same command continues")
            raise
        failed = {failure.name for failure in failures}
        runs = there | {job.name: job.run for job in jobs if job.name not in failed}
        drawn = {n: recipes for n, recipes in needs.items() if set(recipes.values()) <= set(runs)}
        count = asked["latent_samples"]
        _draw(
            drawn, runs, data, EvaluationConfig(seed=options.seed, latent_samples=count), options
        )
    for failure in failures:
        print(f"failed: {failure.name}, log {failure.log}\n  {failure.reason}")
    print(f"figures {', '.join(map(str, drawn)) or 'none'}: {out}")
    return 1 if failures else 0


def _asked(options: Namespace, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of all runs: options given now win over those of an earlier command."""
    budget = budget_of(options)
    kept = before if options.budget is None else {}
    steps = kept.get("steps", budget.steps) if options.steps is None else options.steps
    return {
        "target": "figures",
        "steps": check_positive_int("steps", steps),
        "budget": kept.get("budget", dict(budget.overrides)),
        "overrides": list(overrides_of(options, {}, before)),
        "latent_samples": kept.get("latent_samples", budget.measured["latent_samples"]),
    }


def _draw(
    needs: Needs,
    runs: Mapping[str, Path],
    data: Mapping[str, DataSet],
    config: EvaluationConfig,
    options: Namespace,
) -> None:
    """Draw figures and write them to files."""

    @cache
    def subject(recipe: str) -> Subject:
        name = RECIPES[recipe].options["data"]
        # Two moons are small, and are measured where they are held.
        device = torch.device("cpu") if name == MOONS else choose_device(options.device)
        return Subject(open_run(runs[recipe], device), data[name], config, progress=False)

    out = Path(options.out)
    with torch.no_grad(), progress_bar(needs.items(), unit="figure") as bar:
        for number, recipes in bar:
            bar.set_description(f"drawing figure {number}")
            torch.manual_seed(options.seed)  # whichever figures there are
            figure = FIGURES[number].draw({key: subject(name) for key, name in recipes.items()})
            for suffix in ("png", "pdf"):
                save_figure(figure, out / f"figure-{number}.{suffix}")


def _needs(options: Namespace) -> Needs:
    """Return the recipe of each system, for each figure that is requested."""
    asked = [str(number) for number in FIGURES]
    if options.only is not None:
        asked = [number.strip() for number in options.only.split(",")]
        for number in asked:
            check_choice("only", number, map(str, FIGURES))
    numbers = [number for number in FIGURES if str(number) in asked]
    if any(not FIGURES[number].moons for number in numbers):
        check_choice("data of figures 4 to 8", options.data, IMAGES)
    return {number: FIGURES[number].recipes(options.data, options.variant) for number in numbers}


def _recipes(needs: Needs) -> list[str]:
    """Return all recipes, each once."""
    return list(dict.fromkeys(name for recipes in needs.values() for name in recipes.values()))


def _runs_there(options: Namespace, needs: Needs) -> dict[str, Path]:
    """Return the finished runs of the study that ``--runs`` names, by recipe."""
    if options.runs is None:
        return {}
    study = Path(options.runs)
    if not study.is_dir():
        raise FileNotFoundError(
            f"--runs must be the folder of a study, and {study} is none; give the output "
            f"folder of '{PROGRAM} table1'"
        )
    found = {}
    for recipe in _recipes(needs):
        run = RunFolder(run_path(study, recipe, options.seed))
        if run.exists and run.steps()[-1:] == [run.config.get("steps")]:
            found[recipe] = run.path
    return found


def _job(recipe: str, asked: Mapping[str, Any], options: Namespace) -> Job:
    usual = {} if recipe.endswith(AUTHORS_CODE) else asked["budget"]
    overrides = [*(f"{key}={value}" for key, value in usual.items()), *asked["overrides"]]
    steps = steps_of(recipe, asked["steps"])
    return Job(
        name=recipe,
        run=run_path(Path(options.out), recipe, options.seed),
        steps=steps,
        train=recipe_arguments(recipe, seed=options.seed, steps=steps, overrides=overrides),
        place=place_of(options),
    )


def _plan(
    jobs: Sequence[Job], there: Mapping[str, Path], asked: Mapping[str, Any], options: Namespace
) -> str:
    lines = []
    if options.runs is not None:
        lines.append(f"{counted(len(there), 'run')} of {options.runs}, as they are there:")
        for recipe, path in there.items():
            found, wanted = RunFolder(path).config["steps"], steps_of(recipe, asked["steps"])
            other = "" if found == wanted else f", and not the requested {wanted}"
            lines.append(f"  {recipe}: {counted(found, 'step')}{other}")
    usual = [f"{key}={value}" for key, value in asked["budget"].items()]
    shown = ", ".join([*usual, *asked["overrides"]])
    return "\n".join(
        [
            *lines,
            f"{counted(len(jobs), 'run')} in {options.out}, {asked['steps']} steps each, on "
            f"{choose_device(options.device)}",
            f"overrides: {shown or 'none'}",
        ]
    )
