"""Two ranks that train are one: they stop, refuse, grow and keep their weights together."""

import dataclasses
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyro_dpvae._ranks import ranks
from pyro_dpvae.data import Batches, load
from pyro_dpvae.guides import RecursiveMixtureGuide
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.training import TrainConfig, check_run, fit
from pyro_dpvae.training.checks import check_last_batch, check_shares, hold_together
from tests.processes import on_ranks
from tests.test_resume import Trial, same


def test_a_signal_to_one_rank_ends_the_run_on_all_after_the_same_step(tmp_path: Path) -> None:
    trial = Trial({"name": "mae"}, config={"steps": 20, "evaluate_every": 50})

    def work() -> list[tuple[int, Any]]:
        runs = [RunFolder.create(tmp_path / name, {}) for name in ("whole", "ended")]
        trial.train(runs[0])
        # To the second rank, twice as by a terminal and torchrun, in the sixth step.
        twice = [(7, signal.SIGTERM), (8, signal.SIGTERM)] if ranks().index else []
        first = trial.train(runs[1], signals_in=twice)
        second = trial.train(runs[1], resume=True)
        return [(history.step, history.signal) for history in (first, second)]

    assert on_ranks(2, work, tmp_path) == [[(8, signal.SIGTERM), (20, None)]] * 2
    runs = [RunFolder(tmp_path / name) for name in ("whole", "ended")]
    same(*runs, but_checkpoints=True)


def error_of(action: Any) -> str:
    try:
        action()
    except (ValueError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def test_what_one_rank_refuses_is_refused_by_all(tmp_path: Path) -> None:
    def work() -> list[str]:
        system, train, test = Trial().build()
        parts = (system.model, system.guide)
        options: dict[str, Any] = {
            "objective": system.objective,
            "test": test,
            "config": TrainConfig(steps=1),
            "progress": False,
        }
        cut = {"batch_size": 100, "preprocessing": "none"}
        data = load("two-moons").train[:102].clone()
        alone = Batches(data, **cut)
        norms = Batches(data, **cut, rank=ranks().index, ranks=2)
        bad = Batches(data, **cut, rank=ranks().index, ranks=2)
        if ranks().index == 1:  # batches share the memory of data, and would refuse these
            data[:] = torch.nan
        RunFolder.create(tmp_path / "there", {})
        return [
            error_of(lambda: fit(*parts, train=alone, **options)),
            error_of(lambda: fit(*parts, train=bad, **options)),
            error_of(lambda: RunFolder.create(tmp_path / "there", {})),
            error_of(lambda: check_last_batch(system.objective, norms, nn.BatchNorm1d(2))),
            error_of(lambda: check_shares(train, train)),
        ]

    found = on_ranks(2, work, tmp_path)
    assert (
        "rank 0 of 1: each rank must train on its own shard, and this is rank 0 of 2"
        in (found[0][0])
    )
    for errors in found:
        assert "must train on its own shard" in errors[0]
        assert "data must be finite" in errors[1]
        assert "already contains a run" in errors[2]
        assert "leave 2 of the 102 items, 1 on each" in errors[3]
        assert "got a shard of 2" in errors[4]


def test_a_share_may_be_smaller_than_what_an_objective_compares() -> None:
    system, _, _ = Trial({"name": "beta-tc"}).build()
    least = system.objective.smallest_batch
    assert least > 1
    cut = {"batch_size": least, "preprocessing": "none"}
    share = Batches(load("two-moons").train[:100], **cut, rank=1, ranks=least)
    config = TrainConfig(steps=1)
    check_run(system.model, system.guide, objective=system.objective, train=share, config=config)


def test_a_guide_grows_on_whole_batches_and_alike_on_all_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def grow(guide: RecursiveMixtureGuide, _model: Any, batches: Any, **_options: Any) -> None:
        sizes.extend(len(x) for x in batches(0))
        for parameter in guide.components[guide.active].parameters():
            nn.init.constant_(parameter, 0.01)
        guide.active += 1

    monkeypatch.setattr(RecursiveMixtureGuide, "grow", grow)
    parts = {"guide": {"name": "recursive-mixture", "components": 2}}
    trial = dataclasses.replace(Trial(parts=parts), config={"steps": 2})

    def work() -> tuple[list[int], list[int], list[Tensor]]:
        run = RunFolder.create(tmp_path / "run", {})
        records = trial.train(run).records
        system, _, _ = trial.build()
        run.checkpoint().load({"guide": system.guide})
        grown = [r["components"] for r in records if "components" in r]
        return sizes, grown, [p.detach() for p in system.guide.parameters()]

    (seen, *first), (other, *second) = on_ranks(2, work, tmp_path)
    assert seen == [100, 100, 100, 50]
    assert other == []
    assert first[0] == second[0] == [2]
    assert all(map(torch.equal, first[1], second[1]))


def test_weights_that_came_apart_are_refused_and_adversaries_taken_from_the_first(
    tmp_path: Path,
) -> None:
    def work() -> tuple[dict[str, Tensor], str]:
        system, _, _ = Trial({"name": "factor", "hidden": [4]}).build()
        parts = (system.model, system.guide, system.objective)
        adversary = system.objective.penalties[0]
        for parameter in adversary.parameters():
            nn.init.constant_(parameter, ranks().index)
        hold_together(*parts)
        if ranks().index == 1:
            next(system.guide.parameters()).data[0] += 1e-6
        return system.objective.state_dict(), error_of(lambda: hold_together(*parts))

    (first, message), (second, same_message) = on_ranks(2, work, tmp_path)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert message == same_message
    assert "those of rank 1 differ from rank zero's;" in message
