"""What mixtures of encoders are worth on MNIST, and what they could be worth.

    DPVAE_DATA=<root of data> python -m papers.posteriors.mixtures --out FOLDER

It trains one model with a single encoder and with recursive mixtures of two and three, each for
10,000 steps with those of growth, with three seeds, and measures ELBO and log p(x) of held-out
images. For the single encoder it also measures the gap: decoder and prior stand, and q(z) of each
image is optimised by itself, a Gaussian and a mixture of two. It writes ``mixtures.md`` to the
folder. It takes about 15 processor minutes. An interrupted command continues when it is given
again.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from papers import grid
from papers.dpvae.jobs import Job
from pyro_dpvae import open_run
from pyro_dpvae._bars import bar
from pyro_dpvae._randomness import forked_rng
from pyro_dpvae.distributions import DiagonalNormalMixture
from pyro_dpvae.evaluation.table import markdown_table
from pyro_dpvae.models import AbstractVAE
from pyro_dpvae.objectives._draws import by_component

__all__ = ["bound", "gap", "gap_table", "jobs_of", "main", "optimised", "table"]

STEPS, SEEDS, COMPONENTS, GROWTH = 10_000, 3, (1, 2, 3), 50
GAP_DATA, GAP_STEPS, GAP_DRAWS = 200, 500, 200

MEASUREMENT = grid.Measurement(
    groups=("elbo", "nll"),
    columns={
        "elbo": "ELBO, nats",
        "nll": "-log p(x), nats",
        "effective_components": "effective components",
    },
    amounts={"nll_samples": 500, "nll_data": 500},
)


def jobs_of(out: Path) -> dict[grid.Key, Job]:
    """Return the job of each number of encoders and seed, one seed after the other."""
    found = {}
    for seed in range(SEEDS):
        for components in COMPONENTS:
            steps = STEPS - (components - 1) * GROWTH
            options: dict[str, object] = {"prior": "standard"}
            if components > 1:
                options |= {"guide": "recursive-mixture", "guide.components": components}
                options["growth-steps"] = GROWTH
            found[str(components), "standard", seed] = grid.job_of(
                out / "runs" / f"{components}-seed-{seed}",
                grid.perceptrons(options, hidden=200, latent_dim=16, steps=steps, seed=seed),
                steps=steps,
                measurement=MEASUREMENT,
            )
    return found


def gap(model: AbstractVAE, encoded: DiagonalNormalMixture, x: Tensor) -> dict[str, Tensor]:
    """Return the bound of each image under q(z) of the encoder, and of its own q(z).

    Args:
        model: the model, which is not changed.
        encoded: q(z | x) of the encoder.
        x: the images.

    Returns:
        Bounds of shape (images,) by the kind of q(z).
    """
    found = {"from the encoder": encoded}
    found["a Gaussian for each image"] = start = optimised(model, encoded, x)
    found["a mixture of two for each image"] = optimised(
        model,
        DiagonalNormalMixture(
            start.logits.repeat(1, 2),
            start.loc.repeat(1, 2, 1)
            + 0.7 * start.scale * torch.randn(len(x), 2, start.loc.shape[-1]),
            start.scale.repeat(1, 2, 1),
        ),
        x,
    )
    with torch.no_grad():
        return {
            name: torch.stack([bound(model, q, x) for _ in range(GAP_DRAWS)]).mean(0)
            for name, q in found.items()
        }


def optimised(model: AbstractVAE, q: DiagonalNormalMixture, x: Tensor) -> DiagonalNormalMixture:
    """Return a mixture for each image that has climbed the image's own bound by Adam."""
    parts = [nn.Parameter(part.clone()) for part in (q.logits, q.loc, q.scale.log())]
    optimizer = torch.optim.Adam(parts, lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, GAP_STEPS)
    for _ in bar(range(GAP_STEPS), description="q(z) of each image", unit="step"):
        logits, loc, log_scale = parts
        q = DiagonalNormalMixture(logits, loc, log_scale.exp())
        loss = -torch.stack([bound(model, q, x).sum() for _ in range(2)]).sum()
        optimizer.zero_grad()
        loss.backward(inputs=parts)
        optimizer.step()
        schedule.step()
    final = [part.detach() for part in parts]
    return DiagonalNormalMixture(final[0], final[1], final[2].exp())


def bound(model: AbstractVAE, q: DiagonalNormalMixture, x: Tensor) -> Tensor:
    """Return the bound of each image, from a draw of each component."""
    terms = [
        weight * (model.prior().log_prob(z) + model.decoder(z).log_prob(x) - q.log_prob(z))
        for z, weight in by_component(q)
    ]
    return torch.stack(terms).mean(0)


def gap_table(run: Path) -> str:
    """Return the bounds of the encoder of a run, and of the own q(z) of held-out images."""
    opened = open_run(run)
    assert isinstance(opened.data.test, Tensor)
    with forked_rng(0), torch.no_grad():
        x = next(iter(opened.batches(opened.data.test[:GAP_DATA]).epoch(0)))
        q = opened.guide.posterior(x).base_dist
        one = q.loc.new_zeros(len(x), 1)
        encoded = DiagonalNormalMixture(one, q.loc[:, None], q.scale[:, None])
        with torch.enable_grad():
            found = gap(opened.model, encoded, x)
    rows = [["q(z)", "ELBO, nats", "gain over the encoder"]]
    first, *_ = found.values()
    for name, bounds in found.items():
        gain = bounds - first
        error = float(gain.std()) / math.sqrt(len(gain))
        said = "" if bounds is first else f"{float(gain.mean()):.2f} ± {error:.2f}"
        rows.append([name, f"{float(bounds.mean()):.2f}", said])
    return markdown_table(rows)


def table(values: grid.Values, jobs: Mapping[grid.Key, Job], spent: grid.Spent) -> str:
    """Return means over seeds, paired differences from one encoder, and the gap of one run."""
    columns = MEASUREMENT.columns
    rows = [["encoders", *columns.values(), "training, minutes"]]
    for components in map(str, COMPONENTS):
        case, reference = (components, "standard"), ("1", "standard")
        if grid.of_seeds(values, case, "elbo"):
            *cells, number = (grid.beside(values, case, reference, one) for one in columns)
            cells.append("1" if case == reference else number.partition(",")[0])
            rows.append([components, *cells, grid.minutes(jobs, case, spent)])
    first = ("1", "standard", 0)
    below = [gap_table(jobs[first].run)] if first in values else []
    return "\n\n".join([markdown_table(rows), *below])


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and measure what is missing, and write the tables; returns the exit status."""
    return grid.run_study(
        "papers.posteriors.mixtures",
        __doc__ or "",
        jobs_of=lambda options: jobs_of(options.out),
        measurement_of=lambda _: MEASUREMENT,
        text_of=lambda _, *found: table(*found),
        arguments=arguments,
    )


if __name__ == "__main__":
    raise SystemExit(main())
