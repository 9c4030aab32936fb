"""Studies over a grid of cases, priors and seeds: each run is trained, measured and kept.

Every study has the options ``--out``, the folder of its runs and results, and ``--jobs``, the
number of processes at once. An interrupted command continues when it is given again.
"""

import argparse
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from papers.dpvae.claims import Interval, mean_interval
from papers.dpvae.jobs import Job, run_jobs, seconds_of
from papers.dpvae.results import measured
from papers.dpvae.studies import check_runs
from pyro_dpvae._files import make_folder, write_whole
from pyro_dpvae.cli import exit_status
from pyro_dpvae.evaluation import EvaluationConfig, numbers_of
from pyro_dpvae.runs import RunFolder

__all__ = [
    "Case",
    "Key",
    "Measurement",
    "Spent",
    "Values",
    "beside",
    "change",
    "difference",
    "flags",
    "job_of",
    "mean",
    "minutes",
    "of_seeds",
    "perceptrons",
    "results",
    "run_study",
    "source_of",
]

Case = tuple[str, str]
"""A case and a prior, which the seeds repeat."""

Key = tuple[str, str, int]
"""Case, prior and seed of a run."""

Values = Mapping[Key, Mapping[str, float]]
"""The metrics of the runs that are finished."""

Spent = Mapping[str, Mapping[str, float]]
"""The processor seconds of each command by the name of the job."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What is measured of each run of a study, and shown.

    Attributes:
        groups: groups of metrics.
        columns: titles of the columns of tables, by metric.
        amounts: numbers of samples and items, as in :class:`EvaluationConfig`.
    """

    groups: tuple[str, ...]
    columns: Mapping[str, str]
    amounts: Mapping[str, int] = field(default_factory=dict)


def flags(options: Mapping[str, object]) -> tuple[str, ...]:
    """Return the arguments of a command for options by name.

    Example:
        >>> flags({"data": "mnist", "steps": 5})
        ('--data', 'mnist', '--steps', '5')
    """
    return tuple(part for name, one in options.items() for part in (f"--{name}", str(one)))


def source_of(data: str) -> str:
    """Return the name of a data set, or the path of a file in the root of data, DPVAE_DATA."""
    return str(Path(os.environ.get("DPVAE_DATA", ".")) / data) if Path(data).suffix else data


def perceptrons(
    options: Mapping[str, object], *, hidden: int, latent_dim: int, steps: int, seed: int
) -> tuple[str, ...]:
    """Return the arguments of ``dpvae train`` for a VAE of perceptrons with two hidden layers.

    Where the options say nothing else, it has a Bernoulli likelihood of the pixels of MNIST, drawn
    anew for each batch, and Adam at 1e-3 with a cosine schedule and batches of 100.

    Args:
        options: further options, and those that replace others, by name.
        hidden: the width of each hidden layer, where the options name no network.
        latent_dim: the size of z.
        steps: the number of training steps.
        seed: the seed.
    """
    network = {"network": "mlp", "network.hidden": [hidden, hidden]}
    usual = {
        "data": "mnist",
        "preprocessing": "binary-dynamic",
        "likelihood": "bernoulli",
        "learning-rate": "1e-3",
        "learning-rate-schedule": "cosine",
        "batch-size": 100,
        **({} if "network" in options else network),
    }
    return flags({**usual, "latent-dim": latent_dim, **options, "steps": steps, "seed": seed})


def job_of(run: Path, train: Sequence[str], *, steps: int, measurement: Measurement) -> Job:
    """Return the job of a run, which is trained and measured on a CPU.

    Args:
        run: the run folder.
        train: arguments of ``dpvae train``, with the number of steps.
        steps: the number of training steps.
        measurement: what is measured.
    """
    numbers: dict[str, Any] = dict(measurement.amounts)
    config = EvaluationConfig(**numbers)
    amounts = {name.replace("_", "-"): number for name, number in measurement.amounts.items()}
    return Job(
        name=run.name,
        run=run,
        steps=steps,
        train=tuple(train),
        evaluate=("--metrics", ",".join(measurement.groups), *flags(amounts)),
        numbers={group: numbers_of(group, config) for group in measurement.groups},
        place=("--device", "cpu"),
    )


def results(
    jobs: Mapping[Key, Job], measurement: Measurement, *, out: Path, at_once: int
) -> tuple[dict[Key, dict[str, float]], int]:
    """Train and measure what is missing; returns the metrics of each run, and an exit status.

    A run that fails is named, and does not stop the others. A metric that a run lacks is NaN.

    Raises:
        ValueError: if the folder has runs of another configuration, or if runs on one data set
            were measured with several feature networks.
    """
    make_folder(out)
    check_runs([*jobs.values()])
    failures = run_jobs([*jobs.values()], at_once=at_once, out=out)
    for one in failures:
        print(f"failed: {one.name}: {one.reason}; log {one.log}")
    values: dict[Key, dict[str, float]] = {}
    networks: dict[str, set[str]] = {}
    for key, job in jobs.items():
        run = RunFolder(job.run)
        if metrics := measured(run, job.numbers):
            used = {one["settings"].get("network") for one in metrics.values()} - {None}
            networks.setdefault(run.config["data"], set()).update(used)
            values[key] = {
                name: float(metrics[name]["value"]) if name in metrics else math.nan
                for name in measurement.columns
            }
    for data, used in networks.items():
        if len(used) > 1:
            raise ValueError(
                f"runs on {data} must be measured with one feature network, got {sorted(used)} in "
                f"{out}; remove their evaluation.json, and give the command again"
            )
    return values, 1 if failures else 0


def of_seeds(values: Values, case: Case, column: str) -> dict[int, float]:
    """Return a metric of a case and prior by seed."""
    return {seed: one[column] for (*which, seed), one in values.items() if tuple(which) == case}


def mean(values: Values, case: Case, column: str) -> Interval:
    """Return the mean of a metric over seeds."""
    return mean_interval([*of_seeds(values, case, column).values()])


def difference(values: Values, one: Case, other: Case, column: str) -> Interval:
    """Return the mean of the differences of a metric, one minus other, paired by seed."""
    first, second = (of_seeds(values, case, column) for case in (one, other))
    return mean_interval([first[seed] - second[seed] for seed in first if seed in second])


def change(values: Values, before: Case, after: Case, column: str) -> str:
    """Return two means and the paired difference with its interval of 95 %, as text.

    Example:
        >>> one = {("a", "plain", seed): {"fd": 3.0 + seed} for seed in range(2)}
        >>> two = {("a", "dp", seed): {"fd": 1.0} for seed in range(2)}
        >>> change({**one, **two}, ("a", "plain"), ("a", "dp"), "fd")
        '3.5 → 1, -2.5 [-8.85, +3.85]'
    """
    first, second = (mean(values, case, column).mean for case in (before, after))
    paired = difference(values, after, before, column)
    return f"{first:.4g} → {second:.4g}, {_signed(paired)}"


def beside(values: Values, case: Case, reference: Case, column: str) -> str:
    """Return a mean and its paired difference from a reference, as text; empty if unknown.

    Example:
        >>> values = {("a", name, 0): {"fd": fd} for name, fd in (("plain", 3.0), ("dp", 1.0))}
        >>> beside(values, ("a", "plain"), ("a", "plain"), "fd")
        '3'
        >>> beside(values, ("a", "dp"), ("a", "plain"), "fd")
        '1, -2'
        >>> beside(values, ("a", "dp"), ("b", "none"), "fd")
        '1'
    """
    found = mean(values, case, column).mean
    own = "" if math.isnan(found) else f"{found:.4g}"
    change = difference(values, case, reference, column)
    if case == reference or math.isnan(change.mean):
        return own
    return f"{own}, {_signed(change)}"


def _signed(one: Interval) -> str:
    interval = f" [{one.low:+.3g}, {one.high:+.3g}]" if one.count > 1 else ""
    return f"{one.mean:+.3g}{interval}"


def minutes(jobs: Mapping[Key, Job], case: Case, spent: Spent) -> str:
    """Return the mean processor time of training runs of a case, in minutes, as text."""
    own = [spent.get(jobs[key].name, {}).get("train") for key in jobs if key[:2] == case]
    known = [one for one in own if one is not None]
    return f"{sum(known) / len(known) / 60:.1f}" if known else ""


def run_study(
    module: str,
    description: str,
    *,
    jobs_of: Callable[[argparse.Namespace], Mapping[Key, Job]],
    measurement_of: Callable[[argparse.Namespace], Measurement],
    text_of: Callable[[argparse.Namespace, Values, Mapping[Key, Job], Spent], str],
    arguments: Sequence[str] | None = None,
    choices: Mapping[str, Iterable[str]] | None = None,
) -> int:
    """Run a study as a command: train and measure what is missing, then write and print a text.

    The text goes to ``NAME.md`` in the folder, after the last part of the module's name.

    Args:
        module: the module of the study, by its dotted name.
        description: the help of the command.
        jobs_of: returns the jobs for parsed options.
        measurement_of: returns what is measured.
        text_of: returns the text for options, metrics, jobs, and processor seconds of each job.
        arguments: the arguments; None takes those of this process.
        choices: further options, and what each may be; the first is the default.

    Returns:
        The exit status: 1 if a run failed.
    """
    name = f"python -m {module}"
    parser = argparse.ArgumentParser(
        prog=name, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder of runs and results")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes at once")
    for option, some in (choices or {}).items():
        every = list(some)
        parser.add_argument(f"--{option}", choices=every, default=every[0])
    options = parser.parse_args(arguments)

    def work() -> int:
        jobs, out = jobs_of(options), options.out
        values, status = results(jobs, measurement_of(options), out=out, at_once=options.jobs)
        text = text_of(options, values, jobs, seconds_of(out))
        write_whole(out / f"{module.rpartition('.')[2]}.md", text.encode())
        print(text)
        return status

    return exit_status(name, work, arguments or ())
