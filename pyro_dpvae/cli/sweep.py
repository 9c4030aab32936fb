"""``dpvae train --seeds 0,1,2 --sweep objective.beta=1,4``: several runs, and a table of them."""

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import yaml
from jsonargparse import Namespace

from pyro_dpvae._checks import check_seed
from pyro_dpvae.cli.train import trained
from pyro_dpvae.cli.train_options import TrainOptions
from pyro_dpvae.evaluation.compare import half_width
from pyro_dpvae.evaluation.table import text_table
from pyro_dpvae.recipes.config import merged
from pyro_dpvae.recipes.parts import KINDS
from pyro_dpvae.runs import RunFolder

__all__ = ["swept"]

_TERMS = ("elbo", "distortion", "rate")


def swept(options: TrainOptions) -> int:
    """Train a run for each seed and each combination of values; returns the exit status.

    A run that has all its steps is not trained again, and one that was interrupted goes on: the
    same command takes up where it ended.

    Raises:
        ValueError: for a value that an option cannot take, before the first run starts.
    """
    if options.resume is not None:
        raise ValueError(
            f"several runs go on by the same command again, got --resume {options.resume}; give "
            "--out"
        )
    out = Path("runs/sweep" if options.out is None else options.out)
    seeds = _seeds(options)
    variants = list(_variants(options))
    planned = []
    for name, values in variants:
        for seed in seeds:
            run = merged({**values, "seed": seed}, options.run)
            folder = out / name / f"seed-{seed}"
            one = replace(options, run=run, out=None, resume=str(folder), seeds=None, sweep=())
            _ = one.config  # which refuses what is wrong with it
            planned.append(one)
    for number, one in enumerate(planned, 1):
        print(f"run {number} of {len(planned)}: {one.resume}", file=sys.stderr)
        if status := trained(one):
            print("the same command goes on with the runs that are left", file=sys.stderr)
            return status
    print(_table(out, [name for name, _ in variants], seeds))
    return 0


def _seeds(options: TrainOptions) -> list[int]:
    if options.seeds is None:
        return [int(options.run.get("seed", 0))]
    try:
        found = [check_seed(int(one)) for one in options.seeds.split(",")]
    except ValueError as error:
        raise ValueError(
            f"--seeds must be whole numbers separated by commas, got {options.seeds!r}; give "
            "--seeds 0,1,2"
        ) from error
    if len({*found}) < len(found):
        raise ValueError(f"--seeds must differ from each other, got {options.seeds}")
    return found


def _variants(options: TrainOptions) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each combination of the values of a sweep: its name, and its options, nested."""
    axes = []
    for one in options.sweep:
        key, equals, values = one.partition("=")
        if not (all(key.split(".")) and equals and values):
            raise ValueError(
                f"--sweep must be KEY=VALUE,VALUE, got {one!r}; give --sweep objective.beta=1,2,4"
            )
        key = key.removeprefix("--").replace("-", "_")
        if key == "seed":
            raise ValueError(f"--sweep varies options, and --seeds seeds; give --seeds {values}")
        axes.append([(key, value) for value in _values(values)])
    for chosen in product(*axes):
        found: dict[str, Any] = {}
        # The name of a part first, since a new name drops the options of the part before it.
        for key, value in sorted(chosen, key=lambda pair: pair[0] not in KINDS):
            plain = _parsed(value)
            option = Namespace({key: {"name": plain} if key in KINDS else plain})
            found = merged(option.as_dict(), found)  # of which a dotted key makes nested mappings
        yield ",".join(f"{key}={value}" for key, value in chosen) or "all", found


def _values(text: str) -> list[str]:
    """Return the parts of a text between its commas, except for those in brackets."""
    found = [""]
    depth = 0
    for letter in text:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return found


def _parsed(value: str) -> Any:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(
            f"a value of --sweep must be a number, a text or a list such as [16,16], got {value!r}"
        ) from error


def _table(out: Path, names: list[str], seeds: list[int]) -> str:
    """Return the held-out terms of each variant: means over seeds, with half intervals of 95 %."""
    rows = [["run", "seeds", *_TERMS]]
    for name in names:
        runs = [RunFolder(out / name / f"seed-{seed}") for seed in seeds]
        ends = [
            [one["held_out"] for one in run.records() if "held_out" in one][-1] for run in runs
        ]
        cells = [_with_interval([end[term] for end in ends]) for term in _TERMS]
        rows.append([name, str(len(seeds)), *cells])
    unit = "held-out terms in nats per datum: mean over seeds ± half its interval of 95 %"
    return f"{text_table(rows)}\n{unit}"


def _with_interval(values: list[float]) -> str:
    if len(values) < 2:
        return f"{fmean(values):.3f}"
    half = half_width(stdev(values) / math.sqrt(len(values)), repetitions=len(values))
    return f"{fmean(values):.3f} ± {half:.3f}"
