"""Guides of one VAE at equal steps and at equal time: ELBO and log p(x) of held-out images.

    DPVAE_DATA=<root of data> python -m papers.posteriors.guides --out FOLDER

It is the comparison of Park, Kim and Kim (2019): 50 latents, perceptrons of two layers of 500
ReLUs, T steps of each search, log p(x) by 5,000 samples, three seeds. Each guide is trained twice:
for 2,000 steps, and for as long as 40,000 steps of the amortized Gaussian take. ``--likelihood``
is that of the paper, a Gaussian whose variance is learned (``gaussian``), or ``bernoulli``, of
pixels that are drawn anew for each batch. ``--data`` is ``mnist`` or ``svhn``, of which 10,000
images are at hand. The variance starts at that of the training images. With a Gaussian, two guides
are also trained as the paper starts them: the bias of the decoder is the mean image.

It writes ``guides.md`` to the folder. The runs of one data set and one likelihood take about two
processor hours; an interrupted command continues when it is given again.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from papers import grid
from papers.dpvae.jobs import Job
from pyro_dpvae.data import load
from pyro_dpvae.evaluation.table import markdown_table
from pyro_dpvae.nn import ARCHITECTURES

__all__ = ["GUIDES", "jobs_of", "main", "mean_image_perceptron", "table"]

LATENT, HIDDEN, SEEDS = 50, 500, 3
STEPS, TIME = 2000, 40_000  # of every guide, and of the amortized Gaussian at equal time
DATA = {"mnist": "mnist", "svhn": "svhn_10k.npz"}
LIKELIHOODS = {
    "gaussian": ("gaussian-learned", "grey"),
    "bernoulli": ("bernoulli", "binary-dynamic"),
}

GUIDES: dict[str, tuple[float, dict[str, object]]] = {
    "amortized": (1, {}),
    "semi-amortized, T=4": (8, {"guide": "semi-amortized", "guide.steps": 4}),
    "flow (IAF)": (
        1.4,
        {"guide": "flow", "guide.kind": "iaf", "guide.blocks": 4, "guide.hidden": "[500]"},
    ),
    "Laplace, T=1": (12, {"guide": "laplace", "guide.steps": 1}),
    "Laplace, T=4": (26, {"guide": "laplace", "guide.steps": 4}),
}
"""The guides, the time of a step over that of the amortized Gaussian, and their options."""

_STARTED = ("amortized", "Laplace, T=4")
_MEAN = "mean image"  # what the name of a guide ends with that starts there

MEASUREMENT = grid.Measurement(
    groups=("elbo", "nll"),
    columns={"elbo": "ELBO, nats", "nll": "-log p(x), nats"},
    amounts={"nll_samples": 5000, "nll_data": 200},
)


def mean_image_perceptron(
    shape: tuple[int, ...], latent_dim: int, raw_shape: tuple[int, ...], *, source: str
) -> nn.Module:
    """Return the perceptrons of the study; the decoder's bias is the mean image of a data set."""
    family = ARCHITECTURES["mlp"]
    networks = nn.Module()
    networks.encoder = family.encoder(shape, hidden=(HIDDEN, HIDDEN))
    networks.decoder = family.decoder(latent_dim, raw_shape, hidden=(HIDDEN, HIDDEN))
    last = [module for module in networks.decoder.modules() if isinstance(module, nn.Linear)][-1]
    images = load(source, root=os.environ.get("DPVAE_DATA")).train
    assert isinstance(images, Tensor)
    with torch.no_grad():
        last.bias.copy_(images.double().flatten(1).mean(0) / 255)
    return networks


def cases(likelihood: str) -> dict[str, str]:
    """Return the rows of the table, and the guide of each."""
    started = {f"{guide}, {_MEAN}": guide for guide in _STARTED if likelihood == "gaussian"}
    return {**{guide: guide for guide in GUIDES}, **started}


def jobs_of(out: Path, likelihood: str, data: str) -> dict[grid.Key, Job]:
    """Return the job of each guide, budget and seed, one seed after the other."""
    source = grid.source_of(DATA[data])
    name, preprocessing = LIKELIHOODS[likelihood]
    found = {}
    for seed in range(SEEDS):
        for row, guide in cases(likelihood).items():
            cost, own = GUIDES[guide]
            for budget, steps in (("steps", STEPS), ("time", round(TIME / cost))):
                options = {
                    "data": source,
                    "preprocessing": preprocessing,
                    "likelihood": name,
                    "prior": "standard",
                    **own,
                    "learning-rate": "5e-4",
                    "batch-size": 128,
                }
                if row.endswith(_MEAN):
                    options["network"] = f"{__package__}.guides.mean_image_perceptron"
                    options["network.source"] = source
                words = "-".join(row.replace(",", "").replace("=", "").split())
                found[row, budget, seed] = grid.job_of(
                    out / "runs" / f"{data}-{likelihood}-{words}-{budget}-seed-{seed}",
                    grid.perceptrons(
                        options, hidden=HIDDEN, latent_dim=LATENT, steps=steps, seed=seed
                    ),
                    steps=steps,
                    measurement=MEASUREMENT,
                )
    return found


def table(values: grid.Values, jobs: Mapping[grid.Key, Job], spent: grid.Spent) -> str:
    """Return means, differences from the amortized Gaussian with intervals of 95 %, and times."""
    columns = MEASUREMENT.columns
    rows = [["guide", "equal", "steps", *columns.values(), "training, minutes"]]
    for budget in ("steps", "time"):
        for row in dict.fromkeys(row for row, *_ in jobs):
            case, reference = (row, budget), ("amortized", budget)
            if grid.of_seeds(values, case, "elbo"):
                cells = [grid.beside(values, case, reference, column) for column in columns]
                steps = f"{jobs[*case, 0].steps:,}"
                rows.append([row, budget, steps, *cells, grid.minutes(jobs, case, spent)])
    return markdown_table(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and measure what is missing, and write the table; returns the exit status."""
    return grid.run_study(
        "papers.posteriors.guides",
        __doc__ or "",
        jobs_of=lambda options: jobs_of(options.out, options.likelihood, options.data),
        measurement_of=lambda _: MEASUREMENT,
        text_of=lambda _, *found: table(*found),
        arguments=arguments,
        choices={"likelihood": LIKELIHOODS, "data": DATA},
    )


if __name__ == "__main__":
    raise SystemExit(main())
