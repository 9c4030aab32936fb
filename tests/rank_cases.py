"""Systems of every objective, and their steps on a rank's part of the data."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyro
import torch
from pyro.infer import SVI
from pyro.optim import PyroOptim
from torch import Tensor, nn

from pyro_dpvae._ranks import ranks
from pyro_dpvae.inference import AveragingOptim, FusedOptim
from pyro_dpvae.objectives import (
    DIP,
    MMD,
    OBJECTIVES,
    AdversarialDivergence,
    BetaTCELBO,
    RegularizedELBO,
    SteinDiscrepancy,
)
from pyro_dpvae.recipes import System, build_system
from tests.noise_of_data import NoiseOfData

Result = dict[str, Any]

SIZE, STEPS, LATENT = 14, 3, 3

OPTIONS: dict[str, dict[str, Any]] = {
    "capacity": {"gamma": 10.0, "capacity": 2.0},
    "factor": {"hidden": [16]},
    "free-bits": {"threshold": 0.2, "group_size": 1},
    "soft-free-bits": {"target": 1.0},
}


def system(objective: str = "elbo", **parts: Any) -> System:
    chosen = {
        "prior": {"name": "standard"},
        "likelihood": {"name": "gaussian-learned"},
        "network": {"name": "moons"},
        "guide": {"name": "amortized"},
        **parts,
    }
    options = OPTIONS.get(objective, {})
    return build_system(
        (2,),
        latent_dim=LATENT,
        dataset_size=100,
        objective={"name": objective, **options},
        **chosen,
    )


def other(make: Callable[[], RegularizedELBO], **parts: Any) -> System:
    built = system(**parts)
    return System(built.model, built.guide, make())


LAPLACE = {"name": "laplace", "steps": 1}

FLOW = {"name": "flow", "kind": "coupling", "blocks": 2, "hidden": [8], "context": 4}

COUPLING = {"name": "coupling", "blocks": 2, "hidden": [8]}

CLUSTERS = {
    "model": {"name": "clustering-ladder"},
    "prior": {"name": "mixture", "components": 4},
    "network": {"name": "ladder-mlp", "latent_dims": [1, 2], "width": 8, "depth": 1},
}

LADDER = {"model": {"name": "ladder"}, "network": CLUSTERS["network"]}

CASES: dict[str, Callable[[], System]] = {
    **{name: partial(system, name) for name in OBJECTIVES},
    "adversarial divergence": partial(
        other,
        lambda: RegularizedELBO(
            penalties=[AdversarialDivergence(1.0, latent_dim=LATENT, hidden=[16])]
        ),
    ),
    "stein, couplings": partial(
        other, lambda: RegularizedELBO(penalties=[SteinDiscrepancy(1.0)]), prior=COUPLING
    ),
    "dip II, full covariance": partial(
        other, lambda: RegularizedELBO(penalties=[DIP(1.0, 1.0, form="II")]), guide=LAPLACE
    ),
    "tc, full covariance": partial(system, "beta-tc", guide=LAPLACE, prior=COUPLING),
    "mae, full covariance": partial(system, "mae", guide=LAPLACE),
    "tc, flow": partial(system, "beta-tc", guide=FLOW, prior=COUPLING),
    "dip, flow": partial(system, "dip", guide=FLOW),
    "mae, autoregressive flow": partial(system, "mae", guide={**FLOW, "kind": "iaf"}),
    "tc, mixture": partial(
        system,
        "beta-tc",
        guide={"name": "recursive-mixture", "components": 2, "recursive": False},
    ),
    "mmd, clusters": partial(system, "info", **CLUSTERS),
    "tc, ladder": partial(system, "beta-tc", **LADDER),
    "tc, resampled": partial(
        system, "beta-tc", prior={"name": "resampled", "hidden": [8], "draws": 16}
    ),
    "mmd, particles": partial(
        other,
        lambda: RegularizedELBO(penalties=[MMD(1.0)], num_particles=3, vectorize_particles=True),
    ),
    "tc, particles in a loop": partial(
        other, lambda: BetaTCELBO(3.0, dataset_size=100, num_particles=2)
    ),
}


def data(steps: int = STEPS) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(steps, SIZE, 2, generator=generator, dtype=torch.float64)


@contextmanager
def own_part(steps: int = STEPS) -> Iterator[Tensor]:
    """This rank's part of the data, with random numbers of its own data."""
    here = ranks()
    size = SIZE // here.count
    first = here.index * size
    part = data(steps)[:, first : first + size].contiguous()
    with NoiseOfData(size, first=first):
        yield part


@contextmanager
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def start(make: Callable[[], System]) -> System:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    built = make()
    for module in [*built.model.modules(), *built.guide.modules()]:
        if isinstance(module, nn.BatchNorm1d):  # which normalises by rank
            module.eval()
    built.objective.across_ranks()
    pyro.set_rng_seed(1)
    return built


def state(built: System) -> dict[str, Tensor]:
    parts = {"model": built.model, "guide": built.guide, "objective": built.objective}
    return {
        f"{part}.{name}": tensor.detach().clone()
        for part, owner in parts.items()
        for name, tensor in owner.state_dict().items()
    }


def steps_by(step: Callable[[Tensor], Any], built: System, *, steps: int = STEPS) -> Result:
    """Losses and terms of some steps, and what they leave behind."""
    losses, terms = [], []
    with own_part(steps) as batches:
        for x in batches:
            losses.append(float(step(x)))
            terms.append({name: float(term) for name, term in built.objective.terms.items()})
    return {"losses": losses, "terms": terms, "state": state(built)}


def trained(
    make: Callable[[], System],
    *,
    optim: Callable[[], PyroOptim] = lambda: FusedOptim({"lr": 1e-2}),
    steps: int = STEPS,
) -> Result:
    with double():
        built = start(make)
        svi = SVI(built.model, built.guide, AveragingOptim(optim()), built.objective)
        return steps_by(svi.step, built, steps=steps)


def error_of(action: Callable[[], Any]) -> str:
    try:
        action()
    except (TypeError, ValueError) as error:
        return str(error)
    return "none"


def warnings_of(action: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    return [str(warning.message) for warning in caught]


Of = Callable[[Callable[[], Any]], list[Any]]


def assert_same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
