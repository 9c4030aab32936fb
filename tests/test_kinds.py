"""A thing of the wrong kind is refused in one sentence, and works where it makes sense."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pyro.distributions as dist
import pytest
import torch

from pyro_dpvae import CouplingPrior, StandardNormal
from pyro_dpvae.metrics import symmetric_kl

MESSAGES = {
    "model": r"model must be a torch.nn.Module.*PyroModule; got function",
    "guide": "guide must be a torch.nn.Module",
    "objective": "objective must be .*BetaELBO.*; got Trace_ELBO",
    "train": "train must be data.Batches or a DataLoader; .*; got TensorDataset",
    "test": "test must be data.Batches or a DataLoader; .*; got list",
    "loader": "got DataLoader; of a DataLoader pass its dataset",
    "named": "must be a tensor, or a tuple of data and further values.* got dict from list",
    "decoder": r"decoder must be a decoder, such as Decoder\(.*; got function",
    "network": r"network must be a torch\.nn\.Module .*wrap a function in a module; got function",
    "prior": "prior must be a prior of this library.*FixedPrior.*; got Normal",
    "likelihood": "WithoutRule has no rule.*set the class attribute rule",
}


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.wrong_kinds"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    messages: dict[str, str] = json.loads(done.stdout)
    return messages


@pytest.mark.parametrize("name", MESSAGES)
def test_the_wrong_kind_is_refused_in_one_sentence(name: str, found: dict[str, str]) -> None:
    assert re.search(MESSAGES[name], found[name])
    assert "\n" not in found[name]


def test_every_case_is_looked_at(found: dict[str, str]) -> None:
    assert found.keys() == MESSAGES.keys()


def test_distributions_stand_on_either_side_of_the_divergence() -> None:
    """Between N(0, 1) and N(m, s^2) it is (s^2 + m^2 + 1 / s^2 + m^2 / s^2) / 2 - 1."""
    torch.manual_seed(0)
    m, s = 0.7, 1.3
    p = dist.Normal(torch.zeros(1), 1.0).to_event(1)
    q = dist.Normal(torch.tensor([m]), s).to_event(1)
    exact = (s**2 + m**2 + 1 / s**2 + m**2 / s**2) / 2 - 1
    for one in (p, StandardNormal(1)):
        found = symmetric_kl(one, q, num_samples=20_000)
        assert abs(found.value - exact) < 4 * found.standard_error
        assert not math.isnan(found.standard_error)


def test_a_distribution_may_be_the_base_of_couplings() -> None:
    prior = CouplingPrior(2, base=dist.StudentT(5.0, torch.zeros(2), 1.0).to_event(1))
    assert prior().log_prob(prior().sample((5,))).isfinite().all()
