"""The time of the coupling prior: Pyro's composed transforms, our stack, and our stack compiled.

``python -m benchmarks.coupling [--quick] [--json FILE]`` measures on one thread, at L = 32 with
six couplings of 2 x 256 units. Every variant runs the same networks; before anything is timed,
its values and gradients are compared with the base's.

What is timed: ``gradient``, log p(z) of 100 points with its gradients to z and all parameters;
``density``, log p(z) of 2048 points without gradients; ``sample``, 2048 draws.

- ``pyro``: ``CouplingPrior.composed()``, made anew on each call: what others are divided by.
- ``stack``: ``CouplingPrior.forward()``, made anew on each call.
- ``compiled``: the same density under ``torch.compile``, as one graph.
"""

from collections.abc import Callable
from functools import partial

import pyro
import torch
from torch import Tensor

from benchmarks._program import parse, report
from pyro_dpvae import CouplingPrior

LATENT_DIM = 32
FEW, MANY = 100, 2048


def build() -> tuple[CouplingPrior, Tensor]:
    """Return a prior and ``MANY`` points to score."""
    pyro.set_rng_seed(0)
    prior = CouplingPrior(LATENT_DIM, blocks=6, hidden=(256, 256))
    return prior, torch.randn(MANY, LATENT_DIM)


def densities(prior: CouplingPrior, *, compiled: bool) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return log p(z) of each variant."""

    def stack(z: Tensor) -> Tensor:
        return prior().log_prob(z)

    made: dict[str, Callable[[Tensor], Tensor]] = {
        "pyro": lambda z: prior.composed().log_prob(z),
        "stack": stack,
    }
    if compiled:
        made["compiled"] = torch.compile(stack, fullgraph=True)
    return made


def gradient(*, compiled: bool) -> dict[str, Callable[[], list[Tensor]]]:
    """Return a step of each variant: log p(z) and its gradients, as in training."""
    prior, points = build()
    z = points[:FEW].requires_grad_()
    leaves = [z, *prior.parameters()]

    def step(log_prob: Callable[[Tensor], Tensor]) -> list[Tensor]:
        for leaf in leaves:
            leaf.grad = None
        log_p = log_prob(z)
        log_p.sum().backward()
        return [log_p.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]

    variants = densities(prior, compiled=compiled)
    return checked({name: partial(step, log_prob) for name, log_prob in variants.items()})


def density(*, compiled: bool) -> dict[str, Callable[[], list[Tensor]]]:
    """Return a step of each variant: log p(z) alone, as in evaluation."""
    prior, z = build()

    @torch.no_grad()
    def step(log_prob: Callable[[Tensor], Tensor]) -> list[Tensor]:
        return [log_prob(z)]

    variants = densities(prior, compiled=compiled)
    return checked({name: partial(step, log_prob) for name, log_prob in variants.items()})


def sample() -> dict[str, Callable[[], list[Tensor]]]:
    """Return a step of each variant that draws; compiled code has random numbers of its own."""
    prior, _ = build()
    return checked(
        {
            "pyro": lambda: [prior.composed().sample((MANY,))],
            "stack": lambda: [prior().sample((MANY,))],
        }
    )


def checked(steps: dict[str, Callable[[], list[Tensor]]]) -> dict[str, Callable[[], list[Tensor]]]:
    """Return the steps, or refuse them if one gives other numbers than the base under one seed."""
    found = {}
    for variant, step in steps.items():
        pyro.set_rng_seed(1)
        found[variant] = step()
    for variant, values in found.items():
        for value, expected in zip(values, found["pyro"], strict=True):
            if not (value - expected).norm() <= 1e-4 * expected.norm():
                raise AssertionError(f"{variant} differs from pyro: {value}, not {expected}")
    return steps


def main() -> None:
    """Measure, print and write."""
    options = parse("coupling", quick="a glance without compiled, for a test of this program")
    compiled = not options.quick
    cases = {
        "gradient": (partial(gradient, compiled=compiled), "pyro"),
        "density": (partial(density, compiled=compiled), "pyro"),
        "sample": (sample, "pyro"),
    }
    report(cases, options=options)


if __name__ == "__main__":
    main()
