"""Representation against generation: a regularizer's weight, with and without a decoupled prior.

    DPVAE_DATA=<root of data> python -m papers.dpvae.tradeoff --out FOLDER

It trains perceptrons with ten latents for 3,000 steps with several weights of a regularizer, both
priors and three seeds. It measures the representation, and the Frechet distance, precision and
recall of prior samples, and writes ``tradeoff.md`` and ``tradeoff.png`` to the folder.

``--weight`` is that of beta-VAE (``beta``), FactorVAE (``gamma``) or InfoVAE (``lambda``), and
``--data`` is ``mnist`` or ``dsprites``. On MNIST the representation is measured by the accuracy of
a linear probe, and the 36 runs of beta take about 41 processor minutes; on dSprites by the mutual
information gap, MIG, and about 110. An interrupted command continues when it is given again.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from papers import grid
from papers.dpvae.jobs import Job
from pyro_dpvae.evaluation.table import markdown_table

__all__ = ["DATA", "WEIGHTS", "jobs_of", "main", "table", "tradeoff_figure"]

STEPS, SEEDS = 3000, 3
PRIORS = {"standard": "N(0, I)", "coupling": "decoupled"}


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A weight of a regularizer, and the values that a study gives it.

    Attributes:
        option: the option of the objective.
        values: the values.
        objective: the options of the objective.
    """

    option: str
    values: tuple[float, ...]
    objective: dict[str, object]


WEIGHTS = {
    "beta": Weight(
        option="beta", values=(0.5, 1.0, 2.0, 4.0, 8.0, 16.0), objective={"objective": "beta"}
    ),
    "gamma": Weight(
        option="gamma",
        values=(1.0, 5.0, 20.0, 80.0),
        # The five layers of 1,000 units of Kim and Mnih (2018) take ten times the rest of a step.
        objective={"objective": "factor", "objective.hidden": "[256, 256, 256]"},
    ),
    "lambda": Weight(
        option="lambda_",
        values=(1.0, 10.0, 100.0, 1000.0, 10_000.0),
        objective={"objective": "info", "objective.alpha": 0.0},
    ),
}
"""The weights of the regularizers by the names of the papers."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """A data set of the study.

    Attributes:
        source: the name of the data set, or the name of a file in the root of data.
        representation: the metric of the representation.
        group: the group of that metric.
        title: the name of that metric in tables and figures.
    """

    source: str
    representation: str
    group: str
    title: str


DATA = {
    "mnist": Data(
        source="mnist",
        representation="probe",
        group="probe",
        title="probe accuracy",
    ),
    "dsprites": Data(
        source="dsprites_46k.npz",
        representation="mig",
        group="disentanglement",
        title="MIG",
    ),
}
"""The data sets by name."""


def measurement_of(data: Data) -> grid.Measurement:
    """Return what is measured of the runs on a data set."""
    return grid.Measurement(
        groups=("elbo", "skl", data.group, "domain"),
        columns={
            "frechet_domain": "FD",
            "frechet_low_posterior_domain": "FD(LP)",
            "precision_domain": "precision",
            "recall_domain": "recall",
            data.representation: data.title,
            "elbo": "ELBO, nats",
            "skl": "sKL, nats",
        },
        amounts={"latent_samples": 5000, "images": 5000},
    )


def jobs_of(out: Path, weight: str, data: Data) -> dict[grid.Key, Job]:
    """Return the job of each prior, weight and seed, all values of a seed before the next seed."""
    chosen, found = WEIGHTS[weight], {}
    for seed in range(SEEDS):
        for value in chosen.values:
            for prior in PRIORS:
                options = {
                    "data": grid.source_of(data.source),
                    "prior": prior,
                    **chosen.objective,
                    f"objective.{chosen.option}": f"{value:g}",
                }
                found[f"{value:g}", prior, seed] = grid.job_of(
                    out / "runs" / f"{prior}-{weight}-{value:g}-seed-{seed}",
                    grid.perceptrons(options, hidden=400, latent_dim=10, steps=STEPS, seed=seed),
                    steps=STEPS,
                    measurement=measurement_of(data),
                )
    return found


def table(values: grid.Values, weight: str, data: Data) -> str:
    """Return means over seeds, and the paired differences with intervals of 95 %."""
    columns = measurement_of(data).columns
    rows = [[weight, *columns.values()]]
    for value in (f"{one:g}" for one in WEIGHTS[weight].values):
        pair = (value, "standard"), (value, "coupling")
        rows.append([value, *(grid.change(values, *pair, column) for column in columns)])
    return markdown_table(rows)


def tradeoff_figure(values: grid.Values, weight: str, data: Data) -> Figure:
    """Draw FD, FD(LP) and precision against the representation, a line per prior."""
    columns = measurement_of(data).columns
    shown = ("frechet_domain", "frechet_low_posterior_domain", "precision_domain")
    figure = Figure(figsize=(11, 4), layout="constrained")
    for panel, column in zip(figure.subplots(1, len(shown)), shown, strict=True):
        for prior, color, mark in (("standard", "#777777", "o"), ("coupling", "#1f77b4", "s")):
            points = []
            for value in (f"{one:g}" for one in WEIGHTS[weight].values):
                case = (value, prior)
                x, y = (grid.of_seeds(values, case, one) for one in (data.representation, column))
                if not x:
                    continue
                panel.plot(
                    [*x.values()], [*y.values()], mark, color=color, alpha=0.35, markersize=4
                )
                points.append(
                    [grid.mean(values, case, one).mean for one in (data.representation, column)]
                )
                panel.annotate(
                    value,
                    points[-1],
                    xytext=(5, 4) if prior == "standard" else (-4, -11),
                    textcoords="offset points",
                    fontsize=8,
                    color=color,
                )
            panel.plot(*np.reshape(points, (-1, 2)).T, "-", color=color, label=PRIORS[prior])
        panel.set(xlabel=f"{data.title} of z", ylabel=columns[column])
        if column.startswith("frechet"):
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter("{x:g}")
            panel.minorticks_off()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        title=f"prior; numbers are {weight}",
        loc="outside upper center",
        ncols=len(labels),
        frameon=False,
        fontsize=8,
    )
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and measure what is missing, and write table and figure; returns the exit status."""

    def text_of(options: argparse.Namespace, values: grid.Values, *_: object) -> str:
        data = DATA[options.data]
        figure = tradeoff_figure(values, options.weight, data)
        figure.savefig(options.out / "tradeoff.png", dpi=120)
        return table(values, options.weight, data)

    return grid.run_study(
        "papers.dpvae.tradeoff",
        __doc__ or "",
        jobs_of=lambda options: jobs_of(options.out, options.weight, DATA[options.data]),
        measurement_of=lambda options: measurement_of(DATA[options.data]),
        text_of=text_of,
        arguments=arguments,
        choices={"weight": WEIGHTS, "data": DATA},
    )


if __name__ == "__main__":
    raise SystemExit(main())
