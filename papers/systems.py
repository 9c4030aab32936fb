"""The related systems with and without the decoupled prior, at one budget of their own each.

    DPVAE_DATA=<root of data> python -m papers.systems --out FOLDER

It trains the recipe of each system with its own prior and with the decoupled prior, three seeds
each, and measures held-out ELBO and log p(x), the symmetric KL and the Frechet distance of prior
samples. It writes ``systems.md`` to the folder. An interrupted command continues when it is given
again.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from papers.dpvae.jobs import Job, seconds_of
from papers.grid import Key, Measurement, Values, change, flags, job_of, results, run_command
from pyro_dpvae._files import write_whole
from pyro_dpvae.evaluation.table import markdown_table

__all__ = ["SYSTEMS", "jobs_of", "main", "table"]

SEEDS = 3

SYSTEMS: dict[str, tuple[int, dict[str, object]]] = {
    "vlae-laplace": (3000, {}),
    "rme": (10_000, {}),
    "ladder-vae": (5000, {"objective.schedule.beta.steps": 5000}),
    "vlac": (5000, {}),
    "mae": (2000, {}),
    "lossy-vae": (2000, {}),
}
"""The recipes of the systems, the number of steps that each is trained for, and other options."""

PRIORS = {"own": "", "decoupled": "-dp"}
"""The priors of each system, and the ending of its recipe."""

MEASUREMENT = Measurement(
    groups=("elbo", "nll", "split", "skl", "domain"),
    columns={
        "elbo": "ELBO, nats",
        "nll": "-log p(x), nats",
        "rate": "rate, nats",
        "skl": "sKL, nats",
        "frechet_domain": "FD",
    },
    amounts={"latent_samples": 5000, "images": 2000, "nll_samples": 500, "nll_data": 200},
)


def jobs_of(out: Path) -> dict[Key, Job]:
    """Return the job of each system, prior and seed, one seed after the other."""
    found = {}
    for seed in range(SEEDS):
        for system, (steps, own) in SYSTEMS.items():
            for prior, ending in PRIORS.items():
                recipe = {"recipe": f"{system}{ending}", "data": "mnist"}
                options = {**recipe, "seed": seed, "steps": steps, **own}
                found[system, prior, seed] = job_of(
                    out / "runs" / f"{system}{ending}-seed-{seed}",
                    flags(options),
                    steps=steps,
                    measurement=MEASUREMENT,
                )
    return found


def table(values: Values, spent: dict[str, dict[str, float]]) -> str:
    """Return means over seeds, paired differences with intervals of 95 %, and processor time."""
    columns = MEASUREMENT.columns
    rows = [["system", "steps", *columns.values(), "training, minutes"]]
    for system, (steps, _) in SYSTEMS.items():
        pair = (system, "own"), (system, "decoupled")
        if not all(any(key[:2] == one for key in values) for one in pair):
            continue
        minutes = [
            sum(spent[f"{system}{ending}-seed-{seed}"]["train"] for seed in range(SEEDS)) / 60
            for ending in PRIORS.values()
        ]
        cells = [change(values, *pair, column) for column in columns]
        rows.append([system, f"{steps:,}", *cells, " and ".join(f"{m:.0f}" for m in minutes)])
    return markdown_table(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and measure what is missing, and write the table; returns the exit status."""

    def work(options: argparse.Namespace) -> int:
        out = options.out
        values, status = results(jobs_of(out), MEASUREMENT, out=out, at_once=options.jobs)
        text = table(values, seconds_of(out))
        write_whole(out / "systems.md", text.encode())
        print(text)
        return status

    return run_command("python -m papers.systems", __doc__ or "", work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
