"""Two ranks with half a batch each take the steps of one rank with all of it.

Whatever ranks do is done by two forked processes, and looked at by the tests afterwards.
"""

import warnings
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro.optim import PyroOptim
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pyro_dpvae._ranks import ranks
from pyro_dpvae.inference import AveragingOptim, CapturedSVI, FusedOptim, captured
from pyro_dpvae.inference._recorded import record_step
from pyro_dpvae.recipes import System
from pyro_dpvae.recording.graph import NotRecordableError
from tests.rank_cases import (
    CASES,
    Of,
    Result,
    assert_same,
    double,
    start,
    steps_by,
    trained,
)

RECORDED = ["factor"]

IN_PARALLEL = ["factor", "tc, mixture"]

OPTIMIZERS: dict[str, Callable[[], PyroOptim]] = {
    "adam": lambda: pyro.optim.Adam({"lr": 1e-2}),
    "clipped-adam": lambda: pyro.optim.ClippedAdam({"lr": 1e-2, "clip_norm": 1.0}),
}


def recorded(make: Callable[[], System], *, backend: str = "fx") -> Result:
    with double():
        built = start(make)
        optim = AveragingOptim(FusedOptim({"lr": 1e-2}))
        svi = CapturedSVI(built.model, built.guide, optim, built.objective, backend=backend)
        found = steps_by(svi.step, built, steps=4)
        return {**found, "recordings": svi.recordings}


def in_parallel(make: Callable[[], System]) -> Result:
    """Steps of a torch optimizer on the objective as a module."""
    with double():
        built = start(make)
        loss: nn.Module = built.objective(built.model, built.guide)
        if ranks().count > 1:
            loss = DistributedDataParallel(loss)
        optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)

        def step(x: Tensor) -> Tensor:
            optimizer.zero_grad()
            value: Tensor = loss(x)
            value.backward()
            optimizer.step()
            return value.detach()

        return steps_by(step, built)


def all_cases() -> dict[str, Result]:
    return {name: trained(make) for name, make in CASES.items()}


def recorded_cases() -> dict[str, Result]:
    """Recorded by both, and by one alone."""
    return {**{name: recorded(CASES[name]) for name in RECORDED}, "by one": one_records()}


def parallel_cases() -> dict[str, Result]:
    return {name: in_parallel(CASES[name]) for name in IN_PARALLEL}


def optimizer_cases() -> dict[str, Result]:
    return {name: trained(CASES["beta-tc"], optim=optim) for name, optim in OPTIMIZERS.items()}


def one_records() -> Result:
    """The second rank refuses to record, after an evaluation."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        record_step(*args, **kwargs)
        raise NotRecordableError("this rank does not want to")

    if ranks().index == 0:
        return recorded(CASES["info"])
    with pytest.MonkeyPatch.context() as patched, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patched.setattr(captured, "record_step", refuse)
        return recorded(CASES["info"])


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_take_the_steps_of_one(case: str, of_ranks: Of) -> None:
    expected = trained(CASES[case])
    for rank in of_ranks(all_cases):
        assert_same(rank[case], expected)


@pytest.mark.parametrize("case", RECORDED)
def test_recorded_steps_of_ranks_are_those_of_one(case: str, of_ranks: Of) -> None:
    expected = trained(CASES[case], steps=4)
    for rank in of_ranks(recorded_cases):
        assert_same(rank[case], {**expected, "recordings": 1})


@pytest.mark.parametrize("case", IN_PARALLEL)
def test_torchs_parallel_module_takes_the_steps_of_one(case: str, of_ranks: Of) -> None:
    expected = in_parallel(CASES[case])
    for rank in of_ranks(parallel_cases):
        assert_same(rank[case], expected)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pyros_optimizers_average_over_ranks(name: str, of_ranks: Of) -> None:
    expected = trained(CASES["beta-tc"], optim=OPTIMIZERS[name])
    for rank in of_ranks(optimizer_cases):
        assert_same(rank[name], expected)


def test_a_rank_that_refuses_to_record_takes_the_same_steps(of_ranks: Of) -> None:
    expected = trained(CASES["info"], steps=4)
    for recordings, rank in zip([1, 0], of_ranks(recorded_cases), strict=True):
        assert_same(rank["by one"], {**expected, "recordings": recordings})
