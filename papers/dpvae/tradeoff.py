"""Representation against generation: beta-VAEs with and without the decoupled prior.

    DPVAE_DATA=<root of data> python -m papers.dpvae.tradeoff --out FOLDER

It trains perceptrons with ten latents on MNIST for 3,000 steps with beta 0.5, 1, 2, 4, 8 and 16,
both priors and three seeds. It measures probe accuracy of the representation, and the Frechet
distance, precision and recall of prior samples. It writes ``tradeoff.md`` and ``tradeoff.png`` to
the folder. Its 36 runs take about 41 processor minutes; an interrupted command continues when it
is given again.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from papers.dpvae.claims import Interval, mean_interval
from papers.dpvae.jobs import Job, run_jobs
from papers.dpvae.results import measured
from pyro_dpvae._files import write_whole
from pyro_dpvae.evaluation import EvaluationConfig, numbers_of
from pyro_dpvae.evaluation.table import markdown_table
from pyro_dpvae.runs import RunFolder

__all__ = ["jobs_of", "main", "table", "tradeoff_figure"]

STEPS, SEEDS = 3000, 3
BETAS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
PRIORS = {"standard": "N(0, I)", "coupling": "decoupled"}
COLUMNS = {
    "probe": "probe accuracy",
    "frechet_domain": "FD",
    "frechet_low_posterior_domain": "FD(LP)",
    "precision_domain": "precision",
    "recall_domain": "recall",
    "elbo": "ELBO",
    "skl": "sKL",
}
_GROUPS = ("elbo", "skl", "probe", "domain")
_SAMPLES = 5000
_AMOUNT = ("--latent-samples", str(_SAMPLES), "--images", str(_SAMPLES))

Key = tuple[str, float, int]
Values = Mapping[Key, Mapping[str, float]]


def jobs_of(out: Path) -> dict[Key, Job]:
    """Return the job of each prior, beta and seed, all values of a seed before the next seed."""
    config = EvaluationConfig(latent_samples=_SAMPLES, images=_SAMPLES)
    numbers = {group: numbers_of(group, config) for group in _GROUPS}
    evaluate = ("--metrics", ",".join(_GROUPS), *_AMOUNT)
    found = {}
    for seed in range(SEEDS):
        for beta in BETAS:
            for prior in PRIORS:
                name = f"{prior}-beta-{beta:g}-seed-{seed}"
                options = {
                    "data": "mnist",
                    "preprocessing": "binary-dynamic",
                    "likelihood": "bernoulli",
                    "network": "mlp",
                    "network.hidden": "[400, 400]",
                    "latent-dim": "10",
                    "prior": prior,
                    "objective": "beta",
                    "objective.beta": f"{beta:g}",
                    "learning-rate": "1e-3",
                    "learning-rate-schedule": "cosine",
                    "batch-size": "100",
                    "steps": str(STEPS),
                    "seed": str(seed),
                }
                found[prior, beta, seed] = Job(
                    name=name,
                    run=out / "runs" / name,
                    steps=STEPS,
                    train=tuple(
                        part for key, one in options.items() for part in (f"--{key}", one)
                    ),
                    evaluate=evaluate,
                    numbers=numbers,
                    place=("--device", "cpu"),
                )
    return found


def table(values: Values) -> str:
    """Return the means over seeds, and the paired differences with intervals of 95 %."""
    by_prior = [["beta", *(f"{title}, {prior}" for title in COLUMNS.values() for prior in PRIORS)]]
    by_pair = [["beta", *COLUMNS.values()]]
    for beta in BETAS:
        means = [
            mean_interval([one[column] for (p, b, _), one in values.items() if (p, b) == key]).mean
            for column in COLUMNS
            for key in [(prior, beta) for prior in PRIORS]
        ]
        by_prior.append([f"{beta:g}", *(f"{mean:.4g}" for mean in means)])
        paired = [_difference(values, beta, column) for column in COLUMNS]
        by_pair.append([f"{beta:g}", *map(_signed, paired)])
    return "\n\n".join(map(markdown_table, (by_prior, by_pair)))


def _difference(values: Values, beta: float, column: str) -> Interval:
    seeds = [seed for prior, b, seed in values if prior == "coupling" and b == beta]
    return mean_interval(
        [
            values["coupling", beta, seed][column] - values["standard", beta, seed][column]
            for seed in seeds
            if ("standard", beta, seed) in values
        ]
    )


def _signed(one: Interval) -> str:
    return f"{one.mean:+.3g} [{one.low:+.3g}, {one.high:+.3g}]"


def tradeoff_figure(values: Values) -> Figure:
    """Draw FD, FD(LP) and precision against probe accuracy, a line per prior through all betas."""
    shown = ("frechet_domain", "frechet_low_posterior_domain", "precision_domain")
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for panel, column in zip(figure.subplots(1, len(shown)), shown, strict=True):
        for prior, color, mark in (("standard", "#777777", "o"), ("coupling", "#1f77b4", "s")):
            points = []
            for beta in BETAS:
                ones = [one for (p, b, _), one in values.items() if (p, b) == (prior, beta)]
                if not ones:
                    continue
                x, y = ([one[name] for one in ones] for name in ("probe", column))
                panel.plot(x, y, mark, color=color, alpha=0.35, markersize=4)
                points.append((np.mean(x), np.mean(y)))
                place = (5, 4) if prior == "standard" else (-4, -11)
                panel.annotate(
                    f"{beta:g}",
                    points[-1],
                    xytext=place,
                    textcoords="offset points",
                    fontsize=8,
                    color=color,
                )
            panel.plot(*zip(*points, strict=True), "-", color=color, label=PRIORS[prior])
        panel.set(xlabel="probe accuracy of z", ylabel=COLUMNS[column])
        if column.startswith("frechet"):
            panel.set_yscale("log")
            panel.set_yticks([100, 200, 500, 1000], ["100", "200", "500", "1000"])
            panel.minorticks_off()
    figure.axes[0].legend(title="prior; numbers are beta", frameon=False, fontsize=8)
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and measure what is missing, and write table and figure; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m papers.dpvae.tradeoff",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder of runs and results")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes at once")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    jobs = jobs_of(options.out)
    failures = run_jobs([*jobs.values()], at_once=options.jobs, out=options.out)
    values = {}
    for key, job in jobs.items():
        if metrics := measured(RunFolder(job.run), job.numbers):
            values[key] = {name: float(metrics[name]["value"]) for name in COLUMNS}
    write_whole(options.out / "tradeoff.md", table(values).encode())
    tradeoff_figure(values).savefig(options.out / "tradeoff.png", dpi=120)
    print(table(values))
    for one in failures:
        print(f"failed: {one.name}: {one.reason}; log {one.log}")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
