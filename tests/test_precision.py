"""Networks in bfloat16: the terms of recorded steps are those of float32, to a tolerance."""

from typing import Any

import pyro
import pytest
import torch

from pyro_dpvae.inference import CapturedSVI, FusedOptim
from pyro_dpvae.recipes import build_system

# Of each term, as docs/training.md states them: a part of its value, and nats.
RELATIVE, NATS = 0.01, 0.02

SYSTEMS: dict[str, dict[str, Any]] = {
    "beta-tc": {
        "objective": {"name": "beta-tc"},
        "prior": {"name": "vamp", "components": 5},
        "likelihood": {"name": "logistic"},
    },
    "factor": {
        "objective": {"name": "factor", "hidden": [16]},
        "prior": {"name": "coupling-mixture"},
        "guide": {"name": "flow", "hidden": [16]},
    },
    "mae": {
        "objective": {"name": "mae"},
        "prior": {"name": "autoregressive", "hidden": [16]},
        "guide": {"name": "semi-amortized", "steps": 2},
    },
    "info": {
        "objective": {"name": "info"},
        "prior": {"name": "mixture", "components": 5},
        "guide": {"name": "recursive-mixture", "recursive": False},
    },
    "laplace": {
        "prior": {"name": "resampled", "hidden": [16]},
        "guide": {"name": "laplace", "steps": 2},
        "likelihood": {"name": "gaussian-learned"},
    },
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_recorded_bfloat16_steps_have_the_terms_of_float32(name: str) -> None:
    options: dict[str, Any] = {
        "latent_dim": 4,
        "dataset_size": 1000,
        "prior": {"name": "coupling"},
        "likelihood": {"name": "bernoulli"},
        "network": {"name": "mlp", "hidden": [32]},
        "guide": {"name": "amortized"},
        "objective": {"name": "elbo"},
    }
    made = build_system((1, 4, 4), **{**options, **SYSTEMS[name]})
    x = (torch.rand(32, 1, 4, 4) < torch.rand(32, 1, 1, 1)).float()
    optim = FusedOptim({"lr": 3e-2})
    svi = CapturedSVI(made.model, made.guide, optim, made.objective)
    for _ in range(4):
        with torch.autocast("cpu", torch.bfloat16):
            svi.step(x)
    assert svi.recordings == 1
    pyro.set_rng_seed(5)
    made.objective.loss(made.model, made.guide, x)
    expected = made.objective.terms
    pyro.set_rng_seed(5)
    with torch.autocast("cpu", torch.bfloat16):
        svi.step(x)
    assert svi.recordings == 1
    found = made.objective.terms
    assert any(not torch.equal(found[term], expected[term]) for term in expected)
    for term, value in expected.items():
        assert found[term].dtype == torch.float32
        torch.testing.assert_close(found[term], value, rtol=RELATIVE, atol=NATS)
