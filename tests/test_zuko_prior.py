"""Flows of zuko as priors, against zuko's own densities and draws."""

import ast
import sys
from pathlib import Path

import pytest
import torch
import zuko
from torch import nn

from pyro_dpvae.priors import ZukoPrior
from pyro_dpvae.priors import zuko as zuko_adapter

SMALL = {"transforms": 2, "hidden_features": (8,)}
FLOWS = {
    "NSF": lambda: zuko.flows.NSF(3, **SMALL),
    "MAF": lambda: zuko.flows.MAF(3, **SMALL),
    "NICE": lambda: zuko.flows.NICE(3, **SMALL),
    "RealNVP": lambda: zuko.flows.RealNVP(3, **SMALL),
}


@pytest.mark.parametrize("flow", FLOWS)
def test_densities_and_draws_are_zukos_own(flow: str) -> None:
    torch.manual_seed(0)
    prior = ZukoPrior(FLOWS[flow]().double())
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    z = torch.randn(20, 3, dtype=torch.float64)
    torch.testing.assert_close(prior().log_prob(z), prior.flow().log_prob(z))
    draws = []
    for p in (prior(), prior.flow()):
        torch.manual_seed(1)
        draws.append(p.sample((20,)))
    torch.testing.assert_close(*draws)


def test_a_flow_that_is_not_inverted_over_its_base_is_refused() -> None:
    torch.manual_seed(0)
    flow, state = zuko.flows.GF(3), torch.get_rng_state()
    with pytest.raises(ValueError, match=r"z0 -> z -> z0 off by .*; use zuko\.flows\.NSF"):
        ZukoPrior(flow)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("flow", FLOWS)
def test_flows_of_the_docstring_have_derivatives_for_a_laplace_guide(flow: str) -> None:
    torch.manual_seed(0)
    prior = ZukoPrior(FLOWS[flow]().double())
    z = torch.randn(4, 3, dtype=torch.float64)
    z.requires_grad_()
    (expected,) = torch.autograd.grad(prior().log_prob(z).sum(), z)
    torch.testing.assert_close(prior.linearize_density(z).gradient, expected)


def test_flows_without_a_map_to_a_normal_are_refused() -> None:
    message = "must map z to a normal base by a bijective transform, got .*; use a flow of"
    for flow in (zuko.flows.GMM(2, components=3), zuko.flows.NCSF(2, **SMALL)):
        with pytest.raises(TypeError, match=message):
            ZukoPrior(flow)


def test_what_is_no_flow_is_refused_with_the_extra_that_has_flows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Normal(nn.Module):
        def forward(self) -> torch.distributions.Distribution:
            return torch.distributions.Normal(torch.zeros(3), torch.ones(3))

    monkeypatch.setitem(sys.modules, "zuko", None)  # as if it were not installed
    with pytest.raises(TypeError, match=r'zuko \(pip install "pyro-dpvae\[flows\]"\), or'):
        ZukoPrior(Normal())


def test_flows_of_no_vector_are_refused() -> None:
    class Matrix(nn.Module):
        def forward(self) -> torch.distributions.Distribution:
            flow = zuko.flows.MAF(3, **SMALL)()
            flow.base = flow.base.expand((2,))
            return flow

    with pytest.raises(ValueError, match=r"a batch, got batch shape \(2,\)"):
        ZukoPrior(Matrix())


def test_the_adapter_does_not_import_zuko() -> None:
    tree = ast.parse(Path(zuko_adapter.__file__).read_text())
    named = [node.names for node in ast.walk(tree) if isinstance(node, ast.Import)]
    sources = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules = [one.name for names in named for one in names] + sources
    assert modules
    assert not any(str(module).startswith("zuko") for module in modules)
