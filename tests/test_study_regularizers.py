"""Every preset trains on MNIST, in float32 and under bf16 autocast, on either prior."""

import os
from collections.abc import Iterator
from pathlib import Path

import pyro
import pytest
import torch
from torch import Tensor

from pyro_dpvae.data import Batches, load
from pyro_dpvae.data.dataset import split_size
from pyro_dpvae.objectives import OBJECTIVES
from pyro_dpvae.recipes import build_system
from pyro_dpvae.training import evaluate_elbo

STEPS = int(os.environ.get("DPVAE_STUDY_STEPS", "2000"))

# Gains of the annealed capacity that 2,000 steps can reach; the rest are the defaults.
OPTIONS = {
    "capacity": {
        "capacity": 25.0,
        "schedule": {"capacity": {"name": "linear", "start": 0.0, "steps": STEPS}},
    }
}


def endless(batches: Batches) -> Iterator[Tensor]:
    number = 0
    while True:
        yield from batches.epoch(number)
        number += 1


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["coupling", "standard"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_preset_trains_without_nan(
    name: str, precision: str, prior: str, real_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = load("mnist", root=real_data)
    pyro.set_rng_seed(0)
    system = build_system(
        data.item_shape,
        latent_dim=10,
        dataset_size=split_size(data.train),
        prior={"name": prior},
        likelihood={"name": "bernoulli"},
        network={"name": "mnist"},
        guide={"name": "amortized"},
        objective={"name": name, **OPTIONS.get(name, {})},
    )
    train, test = (
        Batches(split, batch_size=100, preprocessing="binary-dynamic")
        for split in (data.train, data.test)
    )
    svi = pyro.infer.SVI(
        system.model, system.guide, pyro.optim.Adam({"lr": 1e-3}), loss=system.objective
    )
    before = evaluate_elbo(system.model, system.guide, test)
    losses = []
    batches = endless(train)
    for _ in range(STEPS):
        x = next(batches)
        # A context around the loop would keep its bf16 copies of the first step's weights.
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            losses.append(svi.step(x))
    held_out = evaluate_elbo(system.model, system.guide, test)
    assert torch.tensor(losses).isfinite().all()
    assert all(
        parameter.isfinite().all()
        for module in (system.model, system.guide)
        for parameter in module.parameters()
    )
    assert held_out["elbo"] > before["elbo"] + 50
    terms = {key: round(float(term), 3) for key, term in system.objective.terms.items()}
    with capsys.disabled():
        print(f"\n{name} {precision} {prior}: held-out ELBO {held_out['elbo']:.2f}, {terms}")
