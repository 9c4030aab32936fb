"""Models and guides in Pyro: every parameter trains, several pairs share one process."""

import copy
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_dpvae.decoders import Decoder
from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.guides import AmortizedGaussian
from pyro_dpvae.likelihoods import GaussianLearnedVarianceLikelihood, GaussianLikelihood
from pyro_dpvae.models import VAE
from pyro_dpvae.nn import ARCHITECTURES, Batched
from pyro_dpvae.objectives import BetaELBO, RegularizedELBO
from pyro_dpvae.priors import CouplingPrior, StandardNormal

OBJECTIVES = {
    "ELBO": lambda: RegularizedELBO(),
    "ELBO-particles": lambda: RegularizedELBO(
        num_particles=2, vectorize_particles=True, max_plate_nesting=1
    ),
    "BetaVAE": lambda: BetaELBO(4.0),
    "Trace_ELBO": lambda: Trace_ELBO(),
    "TraceMeanField_ELBO": lambda: TraceMeanField_ELBO(),
    "RenyiELBO": lambda: RenyiELBO(alpha=0.0, num_particles=2, vectorize_particles=True),
}


def pair(prior: str = "coupling") -> tuple[VAE, AmortizedGaussian]:
    likelihood = GaussianLearnedVarianceLikelihood((2,))
    moons = ARCHITECTURES["moons"]
    p_z = CouplingPrior(2) if prior == "coupling" else StandardNormal(2)
    model = VAE(p_z, Decoder(moons.decoder(2, likelihood.raw_shape), likelihood))
    return model, AmortizedGaussian(GaussianEncoder(moons.encoder((2,)), 2))


def parameters(*modules: nn.Module) -> list[nn.Parameter]:
    return [parameter for module in modules for parameter in module.parameters()]


@pytest.mark.parametrize("name", list(OBJECTIVES))
@pytest.mark.parametrize("prior", ["standard", "coupling"])
def test_two_pairs_train_in_one_process_every_parameter(name: str, prior: str) -> None:
    x = torch.randn(20, 2)
    for model, guide in (pair(prior), pair(prior)):
        before = [p.detach().clone() for p in parameters(model, guide)]
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), loss=OBJECTIVES[name]())
        for _ in range(2):
            svi.step(x)
        for old, new in zip(before, parameters(model, guide), strict=True):
            assert not torch.equal(old, new)
        # One optimizer per parameter: none is stepped for another's sake.
        assert len(svi.optim.optim_objs) == len(before)


def test_both_learn() -> None:
    x = torch.randn(200, 2) * 0.1 + 3
    losses = []
    for model, guide in (pair(), pair()):
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), loss=RegularizedELBO())
        first = svi.evaluate_loss(x)
        for _ in range(100):
            svi.step(x)
        losses.append((first, svi.evaluate_loss(x)))
    for first, last in losses:
        assert last < first / 4


def test_the_elbo_module_form_trains_with_torch_optimizers() -> None:
    model, guide = pair()
    loss = RegularizedELBO()(model, guide)
    x = torch.randn(20, 2)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
    before = [p.detach().clone() for p in loss.parameters()]
    loss(x).backward()
    optimizer.step()
    assert all(
        not torch.equal(old, new) for old, new in zip(before, loss.parameters(), strict=True)
    )
    with pyro.settings.context(module_local_params=True):
        model, guide = pair()
        RegularizedELBO()(model, guide)(x).backward()
        assert all(p.grad is not None for p in parameters(model, guide))


def test_sites_plate_and_shapes() -> None:
    model, guide = pair()
    x = torch.randn(6, 2)
    guide_trace = poutine.trace(guide).get_trace(x)
    trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(x)
    trace.compute_log_prob()
    for name in ("z", "x"):
        site = trace.nodes[name]
        assert site["log_prob"].shape == (6,)
        assert [frame.name for frame in site["cond_indep_stack"]] == ["data"]
    assert trace.nodes["x"]["is_observed"]
    assert model(size=3).shape == (3, 2)


def test_a_copy_trains_on_its_own() -> None:
    model, guide = pair()
    x = torch.randn(10, 2)
    SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), loss=RegularizedELBO()).step(x)
    twin, twin_guide = copy.deepcopy(model), copy.deepcopy(guide)
    original = [p.detach().clone() for p in parameters(model, guide)]
    svi = SVI(twin, twin_guide, pyro.optim.Adam({"lr": 1e-2}), loss=RegularizedELBO())
    svi.step(x)
    for old, now, copied in zip(
        original, parameters(model, guide), parameters(twin, twin_guide), strict=True
    ):
        assert torch.equal(old, now)
        assert not torch.equal(old, copied)


def test_a_clash_in_the_store_names_both() -> None:
    model, guide = pair()
    x = torch.randn(10, 2)
    SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), loss=RegularizedELBO()).step(x)
    state = pyro.get_param_store().get_state()
    pyro.get_param_store().set_state(
        {**state, "params": {k: v.detach().clone() for k, v in state["params"].items()}}
    )
    with pytest.raises(RuntimeError, match=r"'.*' of VAE.* differs from the entry 'VAE.*store"):
        model(x)
    pyro.clear_param_store()
    model(x)


def test_a_pyro_module_under_two_roots_is_refused() -> None:
    # Its parameters would be registered under one root and never train under the other.
    network = Batched(nn.Linear(2, 2), in_shape=(2,), out_shape=(2,))
    model = VAE(StandardNormal(2), Decoder(network, GaussianLikelihood((2,))))
    shared = PyroModule[nn.Linear](2, 4)
    model.shared = shared
    guide = AmortizedGaussian(GaussianEncoder(nn.Linear(2, 4), 2))
    guide.shared = shared
    with pytest.raises(RuntimeError, match=r"part 'shared' .* is a PyroModule of another root"):
        model(torch.zeros(3, 2))


def test_frozen_parts_stay(recwarn: Any) -> None:
    model, guide = pair()
    model.prior.requires_grad_(False).eval()
    x = torch.randn(10, 2)
    before = [p.detach().clone() for p in model.prior.parameters()]
    SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), loss=RegularizedELBO()).step(x)
    assert all(
        torch.equal(old, new) for old, new in zip(before, model.prior.parameters(), strict=True)
    )


def test_sizes_that_differ_are_refused() -> None:
    decoder = pair()[0].decoder
    with pytest.raises(ValueError, match="must agree on latent_dim, got 3 and 2"):
        VAE(StandardNormal(3), decoder)


def test_a_model_without_data_draws_at_least_one() -> None:
    model = pair()[0]
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        model(size=0)


def test_a_wrong_shape_is_refused_and_not_broadcast() -> None:
    model, guide = pair()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), loss=RegularizedELBO())
    bad: Tensor
    for bad in (torch.zeros(5, 3), torch.zeros(5), torch.zeros(5, 2, 1)):
        with pytest.raises(ValueError, match="got"):
            svi.step(bad)
