"""The time of a training step under guides of every kind, over that of the amortized Gaussian.

``python -m benchmarks.guides [--quick] [--json FILE]`` measures processor time on one thread:
perceptrons of 2 x 500 units, L = 16, a batch of 128 images, the backend fx. The cases are
likelihoods and priors, and ``conv28``, the convolutional networks for MNIST with L = 10 and a
batch of 100. A guide's ``floor`` is the time of its step if it were matrix products alone, at the
rate of the amortized step's: the ratio of the numbers of operations in the products of the two
recorded steps.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._alternate import ratios
from benchmarks._program import parse, write
from pyro_dpvae.inference import CapturedSVI, FusedOptim
from pyro_dpvae.recipes import build_system
from pyro_dpvae.recording.products import ONEDNN

BASE = "amortized"
LATENT, WIDTH = 16, 500
MLP: dict[str, Any] = {"network": {"name": "mlp", "hidden": (WIDTH, WIDTH)}, "latent_dim": LATENT}
CONV28: dict[str, Any] = {"network": {"name": "mnist"}, "latent_dim": 10}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], int]] = {
    "gaussian": ("gaussian-learned", {"name": "standard"}, MLP, 128),
    "bernoulli": ("bernoulli", {"name": "standard"}, MLP, 128),
    "gaussian-dp": ("gaussian-learned", {"name": "coupling"}, MLP, 128),
    "conv28": ("bernoulli", {"name": "standard"}, CONV28, 100),
}
VARIANTS: dict[str, dict[str, Any]] = {
    "amortized": {"name": "amortized"},
    "semi-amortized, T=4": {"name": "semi-amortized", "steps": 4},
    "flow (IAF)": {"name": "flow", "kind": "iaf", "blocks": 4, "hidden": (WIDTH,)},
    **{f"Laplace, T={t}": {"name": "laplace", "steps": t} for t in (1, 2, 4, 8)},
    "mixture, 4": {"name": "recursive-mixture", "components": 4, "recursive": False},
    "Laplace, T=4, detached": {"name": "laplace", "steps": 4, "detached": True},
}


def recorded_step(
    guide: dict[str, Any], case: str, *, batch: int | None = None
) -> tuple[CapturedSVI, Tensor]:
    """Return SVI with a recorded step, and its batch."""
    likelihood, prior, sizes, usual = CASES[case]
    pyro.set_rng_seed(0)
    system = build_system(
        (1, 28, 28),
        dataset_size=60_000,
        prior=prior,
        likelihood={"name": likelihood},
        guide=guide,
        objective={"name": "elbo"},
        **sizes,
    )
    x = torch.bernoulli(torch.rand(batch or usual, 1, 28, 28))
    svi = CapturedSVI(system.model, system.guide, FusedOptim({"lr": 1e-4}), system.objective)
    for _ in range(3):
        svi.step(x)
    if svi.recordings != 1:
        raise AssertionError(f"{guide} was not recorded")
    return svi, x


def operations(svi: CapturedSVI, x: Tensor) -> int:
    """Return the floating-point operations in the products of a recorded step."""
    (recorded,) = svi._recordings
    by_onednn = {} if ONEDNN is None else {ONEDNN.overloadpacket: _of_linear}
    counter = FlopCounterMode(display=False, custom_mapping=by_onednn)
    with torch.no_grad(), counter:
        recorded.recording.graph(x, *recorded.recording.held)
    return counter.get_total_flops()


def _of_linear(x: torch.Size, weight: torch.Size, *_: object, **__: object) -> int:
    """Return the operations of a linear layer, from the shapes of its arguments."""
    return 2 * x[0] * x[1] * weight[0]


def case(name: str, *, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the ratios of a case."""
    rounds, seconds, batch = (2, 0.0, 4) if options.quick else (9, 0.3, None)
    variants = [BASE, "Laplace, T=1"] if options.quick else list(VARIANTS)
    steps: dict[str, Callable[[], object]] = {}
    counts = {}
    for variant in variants:
        svi, x = recorded_step(VARIANTS[variant], name, batch=batch)
        steps[variant] = partial(svi.step, x)
        counts[variant] = operations(svi, x)
    found = ratios(steps, base=BASE, rounds=rounds, seconds=seconds, clock=time.process_time)
    for variant, count in counts.items():
        found[variant]["floor"] = round(count / counts[BASE], 2)
        print(
            f"{name:12}{variant:24} {found[variant]['ratio']:.2f} [{found[variant]['q1']:.2f}, "
            f"{found[variant]['q3']:.2f}]   floor {found[variant]['floor']:.2f}   "
            f"{found[variant]['milliseconds']:.1f} ms"
        )
    return found


def main() -> None:
    """Measure, print and write."""
    options = parse("guides", quick="small batches and two guides, to test this program")
    torch.set_num_threads(1)
    write({name: case(name, options=options) for name in CASES}, options=options)


if __name__ == "__main__":
    main()
