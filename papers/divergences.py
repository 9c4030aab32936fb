"""Which estimate of the divergence between prior and aggregate posterior is right, and when.

The data of this study are made such that the answer is known. Posterior means are drawn from
N(0, (a^2 - s^2) I) and all posteriors have the standard deviation s, so that q(z) of endless data
is N(0, a^2 I), and the prior is N(0, I). What is measured is q(z) of N data.

    python -m papers.divergences

It takes about five minutes on one core and prints a table in Markdown.
"""

import argparse
import math
from collections.abc import Sequence
from itertools import product

import torch

from pyro_dpvae import AggregatePosterior
from pyro_dpvae._bars import bar
from pyro_dpvae.evaluation.table import markdown_table
from pyro_dpvae.metrics import kl_divergences, split_half_kl
from pyro_dpvae.priors import StandardNormal

__all__ = ["exact", "main", "measured"]

_HEAD = (
    "latents",
    "a",
    "s",
    "data",
    "KL(p, q)",
    "exact",
    "nearest",
    "KL(q, p)",
    "exact",
    "nearest",
)


def exact(latent_dim: int, a: float) -> tuple[float, float]:
    """Return KL(N(0, I) || N(0, a^2 I)) and KL(N(0, a^2 I) || N(0, I)), in nats."""
    return (
        latent_dim * (0.5 * (a**-2 - 1) + math.log(a)),
        latent_dim * (0.5 * (a**2 - 1) - math.log(a)),
    )


def measured(latent_dim: int, a: float, scale: float, count: int) -> list[float]:
    """Return both estimates of both divergences and the divergence of the halves, in nats."""
    loc = torch.randn(count, latent_dim) * math.sqrt(a**2 - scale**2)
    q, p = AggregatePosterior(loc, torch.full_like(loc, scale)), StandardNormal(latent_dim)
    by_density = kl_divergences(p, q)
    by_neighbours = kl_divergences(p, q, estimator="nearest")
    both = [x.value for pair in zip(by_density, by_neighbours, strict=True) for x in pair]
    return [*both, split_half_kl(q).value]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every case and print the table; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m papers.divergences", description=__doc__)
    parser.parse_args(arguments)
    torch.manual_seed(0)
    cases = list(product((2, 10), (1.0, 0.8), (0.5, 0.2, 0.05), (4000, 60_000)))
    rows = [[*_HEAD, "sKL of halves"]]
    for latent_dim, a, scale, count in bar(cases, unit="case"):
        forward, backward = exact(latent_dim, a)
        found = [f"{value:.2f}" for value in measured(latent_dim, a, scale, count)]
        case = str(latent_dim), f"{a:g}", f"{scale:g}", str(count)
        rows.append([*case, f"{forward:.2f}", *found[:2], f"{backward:.2f}", *found[2:]])
    print(markdown_table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
