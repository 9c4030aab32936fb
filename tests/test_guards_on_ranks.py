"""Two ranks decide alike about steps that are not finite, and sum gradients alike."""

from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pyro_dpvae._ranks import ranks
from pyro_dpvae.inference import AccumulatingOptim, AveragingOptim, CapturedSVI, FusedOptim
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.training.guard import GuardedSteps, NonFiniteError
from tests.moons import moons_system
from tests.processes import on_ranks

BAD, STEPS, SIZE = 3, 6, 8


def batch(number: int, *, overflows: bool = False) -> Tensor:
    x = torch.randn(2 * SIZE, 2, generator=torch.Generator().manual_seed(number))
    if overflows and number == BAD:
        x[-1] = 1e30  # a datum of the last rank
    return x


def own(x: Tensor) -> Tensor:
    here = ranks()
    return x[here.index * len(x) // here.count :][: len(x) // here.count]


def weights(*modules: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for module in modules for p in module.parameters()]


def guarded(policy: str, folder: Path) -> dict[str, Any]:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    system = moons_system()
    fused = FusedOptim({"lr": 1e-2}, skip_nonfinite=True)
    objective = RegularizedELBO().across_ranks()
    svi = CapturedSVI(system.model, system.guide, AveragingOptim(fused), objective)
    steps = GuardedSteps(svi, fused, policy=policy, folder=folder / policy)
    taken, error = [], ""
    before = weights(system.model, system.guide)
    for number in range(STEPS):
        if number <= BAD:
            before = weights(system.model, system.guide)
        try:
            taken.append(steps.take(number + 1, own(batch(number, overflows=True))))
        except NonFiniteError as stopped:
            error = str(stopped)
            break
        if number == BAD:
            assert all(map(torch.equal, before, weights(system.model, system.guide)))
    return {"taken": taken, "error": error, "weights": weights(system.model, system.guide)}


def summed(every: int, *, rate: float, shares: bool) -> list[Tensor]:
    """A line fitted to data by plain gradients, in updates of some batches."""
    pyro.clear_param_store()
    pyro.get_param_store().setdefault("slope", torch.zeros(2, dtype=torch.float64))
    fused = FusedOptim({"lr": rate}, constructor=torch.optim.SGD)
    optim = AccumulatingOptim(AveragingOptim(fused), every)
    slope = pyro.param("slope").unconstrained()
    for number in range(STEPS):
        x = own(batch(number)).double()
        (x @ slope - x.sum(-1) ** 2).square().sum().backward()
        optim([slope])
        slope.grad = None
        if shares:
            optim.share()
    return [slope.detach().clone()]


def of_one_rank_only() -> tuple[float, float, int]:
    """Sums where a rank has no gradient of a parameter, and a NaN on one rank only."""
    pyro.clear_param_store()
    store = pyro.get_param_store()
    for name in ("first", "second"):
        store.setdefault(name, torch.zeros(()))
    fused = FusedOptim({"lr": 1.0}, constructor=torch.optim.SGD, skip_nonfinite=True)
    optim = AccumulatingOptim(AveragingOptim(fused), 2)
    own = pyro.param(["first", "second"][ranks().index]).unconstrained()
    for number in range(3):
        own.grad = torch.tensor(torch.nan if number == ranks().index == 1 else 2.0)
        optim([own])
        optim.share()
    first, second = (float(pyro.param(name).detach()) for name in ("first", "second"))
    return first, second, optim.skipped


def of_rank(folder: Path) -> dict[str, Any]:
    return {
        "skip": guarded("skip", folder),
        "stop": guarded("stop", folder),
        "sums": summed(3, rate=2e-3, shares=False),
        "shared sums": summed(3, rate=2e-3, shares=True),
    }


@pytest.mark.filterwarnings("ignore:step 4 is skipped")
def test_ranks_leave_out_the_same_steps_and_sum_the_same_gradients(tmp_path: Path) -> None:
    first, last = on_ranks(2, lambda: of_rank(tmp_path), tmp_path)
    for one in (first, last):
        assert one["skip"]["taken"] == [number != BAD for number in range(STEPS)]
        assert one["stop"]["taken"] == [True] * BAD
        assert "diverged at step 4: the loss is inf" in one["stop"]["error"]
        assert "the first site is 'z', whose log density is not finite" in one["stop"]["error"]
    for name in ("skip", "stop"):
        assert all(map(torch.equal, first[name]["weights"], last[name]["weights"]))
    kept = load_file(tmp_path / "stop" / "step-4.safetensors")
    assert torch.equal(kept["batch"], batch(BAD, overflows=True))  # that of all ranks
    # The mean of two halves' gradients is half of the gradient of the whole.
    (whole,) = summed(3, rate=1e-3, shares=False)
    for name in ("sums", "shared sums"):
        for one in (first, last):
            torch.testing.assert_close(one[name][0], whole, rtol=1e-12, atol=0)


def test_sums_of_one_rank_only_count_for_all_and_a_nan_on_one_is_left_out_by_all(
    tmp_path: Path,
) -> None:
    assert on_ranks(2, of_one_rank_only, tmp_path) == [(-2.0, -2.0, 1)] * 2
