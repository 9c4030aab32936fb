"""The time of log q(z) under the aggregate posterior of a data set.

``python -m benchmarks.mixture [--quick] [--json FILE]`` measures on one thread log q(z) of 5,000
points under 60,000 components, L = 32. Before anything is timed, the errors against the broadcast
form in float64 on 64 points are measured, and those of ``float64`` refused above 1e-6.

- ``float64``, ``float32``: ``AggregatePosterior`` of that dtype; ``float64``
  is what others are divided by.
- ``gemm``: the matrix products of ``float64`` alone, in its tiles: the floor.
- ``broadcast``: ``Normal.log_prob`` of all points and components, and ``logsumexp``, in float32.

All variants are timed on few points, given as ``points`` in the report, ``broadcast`` on fewer,
and their times are scaled to 5,000 points: each is a loop over points.
"""

import math

import torch
from torch import Tensor
from torch.distributions import Normal

from benchmarks._alternate import ratios
from benchmarks._program import parse, write
from pyro_dpvae import AggregatePosterior

LATENT_DIM, POINTS = 32, 5000
TILE = 128, 1024


def broadcast(z: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """Return log q(z) from the densities of all components, some points at a time."""
    parts = [
        Normal(loc, scale).log_prob(part[:, None]).sum(-1).logsumexp(-1) for part in z.split(8)
    ]
    return torch.cat(parts) - math.log(len(loc))


def products(z: Tensor, weights: Tensor, offsets: Tensor) -> None:
    """Run the matrix products of ``float64``."""
    for part in z.split(TILE[0]):
        features = torch.cat([part.square(), part], -1)
        for some, constants in zip(weights.split(TILE[1]), offsets.split(TILE[1]), strict=True):
            torch.addmm(constants, features, some.T)


def main() -> None:
    """Measure, print and write."""
    options = parse("mixture", quick="a glance at few components, for a test of this program")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    components, few, fewer = (2000, 128, 16) if options.quick else (60_000, 512, 16)
    rounds = 2 if options.quick else 15
    loc = torch.randn(components, LATENT_DIM)
    scale = 0.1 * torch.rand(components, LATENT_DIM) + 0.05
    chosen = torch.randint(components, (few,))
    z = loc[chosen] + scale[chosen] * torch.randn(few, LATENT_DIM)
    exact, quick = (
        AggregatePosterior(loc, scale, dtype=dtype) for dtype in (torch.float64, torch.float32)
    )
    sample = z[:64].double()
    expected = broadcast(sample, loc.double(), scale.double())
    errors = {
        name: float((q.log_prob(sample) - expected).abs().max())
        for name, q in (("float64", exact), ("float32", quick))
    }
    errors["broadcast"] = float((broadcast(z[:64], loc, scale).double() - expected).abs().max())
    if not errors["float64"] <= 1e-6:
        raise AssertionError(f"float64 differs from the broadcast form: {errors}")
    weights = torch.randn(components, 2 * LATENT_DIM, dtype=torch.float64)
    offsets, doubled = weights[:, 0].clone(), z.double()
    measured = ratios(
        {
            "float64": lambda: exact.log_prob(z),
            "float32": lambda: quick.log_prob(z),
            "gemm": lambda: products(doubled, weights, offsets),
            "broadcast": lambda: broadcast(z[:fewer], loc, scale),
        },
        base="float64",
        rounds=rounds,
        seconds=0.0,
    )
    for variant, found in measured.items():
        points = fewer if variant == "broadcast" else few
        for part in ("ratio", "q1", "q3"):
            found[part] = round(found[part] * few / points, 3)
        found["points"] = points
        found["seconds_for_5000"] = round(found["milliseconds"] / 1000 * POINTS / points, 3)
        if variant in errors:
            found["error"] = errors[variant]
        print(
            f"{variant:12}{found['ratio']:7.2f} [{found['q1']:.2f}, {found['q3']:.2f}]"
            f"{found['seconds_for_5000']:9.2f} s"
            + (f", error {errors[variant]:.1e}" if variant in errors else "")
        )
    scaled = f"to {POINTS} points, from the points of each variant"
    results = {"components": components, "scaled": scaled, "mixture": measured}
    write(results, options=options)


if __name__ == "__main__":
    main()
