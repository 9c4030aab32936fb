"""Eight priors of one VAE on MNIST: density, divergence, and time of a step and of samples.

    DPVAE_DATA=<root of data> python -m papers.priors --out FOLDER

It trains perceptrons with 16 latents for 10,000 steps with each prior and three seeds, and
measures held-out ELBO, log p(x), rate, the symmetric KL and the Frechet distance of prior samples.
It writes ``priors.md`` to the folder. All 24 runs take about 100 processor minutes. An interrupted
command continues when it is given again.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from papers import grid
from papers.dpvae.jobs import Job
from pyro_dpvae import open_run
from pyro_dpvae.evaluation.table import markdown_table
from pyro_dpvae.priors import AbstractPrior, ZukoPrior

__all__ = ["PRIORS", "jobs_of", "main", "neural_spline", "table"]

STEPS, SEEDS, SAMPLES, REPETITIONS = 10_000, 3, 2000, 5


def neural_spline(latent_dim: int) -> AbstractPrior:
    """Return three autoregressive spline layers of zuko (Durkan et al., 2019)."""
    from zuko.flows import NSF

    return ZukoPrior(NSF(features=latent_dim, transforms=3, hidden_features=(64, 64)))


PRIORS: dict[str, dict[str, object]] = {
    "standard": {},
    "mixture": {"prior.components": 50},
    "vamp": {"prior.components": 500},
    "resampled": {},
    "autoregressive": {},
    "papers.priors.neural_spline": {},
    "coupling": {},
    "coupling-mixture": {"prior.components": 50},
}
"""The priors, and their options."""

MEASUREMENT = grid.Measurement(
    groups=("elbo", "nll", "split", "skl", "domain"),
    columns={
        "elbo": "ELBO, nats",
        "nll": "-log p(x), nats",
        "rate": "rate, nats",
        "skl": "sKL, nats",
        "frechet_domain": "FD",
    },
    amounts={"latent_samples": 5000, "images": 5000, "nll_samples": 500, "nll_data": 500},
)


def jobs_of(out: Path) -> dict[grid.Key, Job]:
    """Return the job of each prior and seed, all priors of a seed before the next seed."""
    found = {}
    for seed in range(SEEDS):
        for prior, own in PRIORS.items():
            found["mnist", prior, seed] = grid.job_of(
                out / "runs" / f"{prior.rpartition('.')[2]}-seed-{seed}",
                grid.perceptrons(
                    {"prior": prior, **own}, hidden=400, latent_dim=16, steps=STEPS, seed=seed
                ),
                steps=STEPS,
                measurement=MEASUREMENT,
            )
    return found


def table(values: grid.Values, jobs: Mapping[grid.Key, Job], spent: grid.Spent) -> str:
    """Return means with intervals of 95 %, differences from the first prior, and times."""
    reference, *_ = PRIORS
    columns = MEASUREMENT.columns
    rows = [["prior", *columns.values(), "ms per step", f"ms per {SAMPLES:,} samples"]]
    for prior in PRIORS:
        case = ("mnist", prior)
        seeds = grid.of_seeds(values, case, "elbo")
        if not seeds:
            continue
        cells = [grid.beside(values, case, ("mnist", reference), column) for column in columns]
        own = [jobs[*case, seed] for seed in seeds]
        step = statistics.median(spent[job.name]["train"] for job in own) / STEPS
        samples = statistics.median(sampling_seconds(job.run) for job in own)
        times = f"{1000 * step:.1f}", f"{1000 * samples:.1f}"
        rows.append([prior.rpartition(".")[2].replace("_", " "), *cells, *times])
    return markdown_table(rows)


def sampling_seconds(run: Path) -> float:
    """Return the processor seconds of 2,000 prior samples on one core, the median of five."""
    prior, threads, found = open_run(run).model.prior, torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            for _ in range(1 + REPETITIONS):
                start = time.process_time()
                prior().sample((SAMPLES,))
                found.append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    return statistics.median(found[1:])  # the first may set up what the others use


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and measure what is missing, and write the table; returns the exit status."""
    return grid.run_study(
        "papers.priors",
        __doc__ or "",
        jobs_of=lambda options: jobs_of(options.out),
        measurement_of=lambda _: MEASUREMENT,
        text_of=lambda _, *found: table(*found),
        arguments=arguments,
    )


if __name__ == "__main__":
    raise SystemExit(main())
