"""Networks that give 10,000 where they should give 1: densities and gradients stay finite."""

from typing import Any

import pyro
import pytest
import torch
from torch import Tensor, nn

from pyro_dpvae.likelihoods import LIKELIHOODS
from pyro_dpvae.nn import Batched
from pyro_dpvae.nn.conditioned import ConditionedPerceptron
from pyro_dpvae.priors import CouplingPrior, MixturePrior, ResampledPrior
from pyro_dpvae.recipes import GUIDES, SYSTEM_PRIORS, System, build_system

SHAPE, EXTREME = (1, 4, 4), 1e4
SMALL: dict[str, dict[str, Any]] = {
    "autoregressive": {"hidden": [8], "mean_only": False},
    "vamp": {"components": 3},
    "recursive-mixture": {"recursive": False},
}
SYSTEMS: dict[str, dict[str, Any]] = {
    **{f"prior-{n}": {"prior": {"name": n, **SMALL.get(n, {})}} for n in SYSTEM_PRIORS},
    **{f"likelihood-{n}": {"likelihood": {"name": n}} for n in LIKELIHOODS},
    **{f"guide-{n}": {"guide": {"name": n, **SMALL.get(n, {})}} for n in GUIDES},
    "ladder": {"model": {"name": "ladder"}, "network": {"name": "auto"}, "latent_dim": None},
    "clustering-ladder": {
        "model": {"name": "clustering-ladder"},
        "network": {"name": "auto"},
        "prior": {"name": "mixture"},
        "latent_dim": None,
    },
    "lossy": {"model": {"name": "lossy"}, "network": {"name": "auto"}},
}


def system(name: str) -> System:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    options: dict[str, Any] = {
        "latent_dim": 4,
        "dataset_size": 100,
        "prior": {"name": "coupling"},
        "likelihood": {"name": "bernoulli"},
        "network": {"name": "mlp", "hidden": [8]},
        "guide": {"name": "amortized"},
        "objective": {"name": "elbo"},
    }
    return build_system((1, 8, 8) if "lad" in name else SHAPE, **{**options, **SYSTEMS[name]})


def push(pattern: float) -> Any:
    """A hook that moves an output by 10,000: up, down, or every other number up."""

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        signs = torch.full(output.shape[-1:], pattern or -1.0)
        signs[1::2] = pattern or 1.0
        return output + EXTREME * signs

    return hook


def to_extremes(made: System, pattern: float) -> None:
    for module in nn.ModuleList([made.model, made.guide]).modules():
        if isinstance(module, Batched | ConditionedPerceptron):
            module.register_forward_hook(push(pattern))
        if isinstance(module, CouplingPrior):
            for coupling in module.couplings:
                for network in coupling.children():
                    network.register_forward_hook(push(pattern))
        if isinstance(module, ResampledPrior):
            module.network.register_forward_hook(push(pattern))
        if isinstance(module, MixturePrior):
            for parameter in module.parameters():
                parameter.data.add_(EXTREME * (pattern or 1.0))


@pytest.mark.parametrize("name", SYSTEMS)
def test_extreme_networks_give_finite_terms_and_gradients(name: str) -> None:
    for pattern in (1.0, -1.0, 0.0):
        made = system(name)
        to_extremes(made, pattern)
        x = torch.rand(6, *((1, 8, 8) if "lad" in name else SHAPE)).round()
        loss, terms = made.objective.evaluate(made.model, made.guide, x)
        loss.backward()
        assert all(bool(term.isfinite()) for term in terms.values()), terms
        for program in (made.model, made.guide):
            for parameter in program.parameters():
                assert parameter.grad is None or bool(parameter.grad.isfinite().all())
