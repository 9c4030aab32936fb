"""A run that goes on is the run that never stopped, bit for bit."""

import dataclasses
import os
import random
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from torch import Tensor

from pyro_dpvae._randomness import random_state, set_random_state
from pyro_dpvae._ranks import gather_objects, ranks
from pyro_dpvae.data import Batches, load
from pyro_dpvae.objectives import OBJECTIVES
from pyro_dpvae.recipes import System, build_system
from pyro_dpvae.runs import Checkpoint, RunFolder, pack, unpack
from pyro_dpvae.training import History, TrainConfig, fit
from pyro_dpvae.training.held_out import average_norms
from tests.children import end_of, fork, wait_for
from tests.processes import on_ranks
from tests.saved import last_file, saved_tensors, saved_weights

STEPS = 13
DATA = 350  # four batches a pass, the last of 50


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass
class Trial:
    """A small run, built anew for each process that takes part in it."""

    objective: dict[str, Any] = field(default_factory=lambda: {"name": "elbo"})
    parts: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    latent_dim: int = 2

    def build(self) -> tuple[System, Batches, Batches]:
        data = load("two-moons")
        pyro.set_rng_seed(0)
        kinds = {
            "prior": {"name": "standard"},
            "likelihood": {"name": "gaussian-learned"},
            "network": {"name": "mlp", "hidden": [8]},
            "guide": {"name": "amortized"},
            **self.parts,
        }
        system = build_system(
            (2,),
            latent_dim=self.latent_dim,
            dataset_size=DATA,
            objective=self.objective,
            **kinds,
        )
        assert isinstance(data.train, Tensor)
        own = {"rank": ranks().index, "ranks": ranks().count}
        train, test = (
            Batches(split[:DATA], batch_size=100, preprocessing="none", **share)
            for split, share in ((data.train, own), (data.test, {}))
        )
        return system, train, test

    def train(
        self,
        run: RunFolder,
        *,
        resume: bool | Checkpoint = False,
        signals_in: Sequence[tuple[int, signal.Signals]] = (),
        killed_at: int | None = None,
    ) -> History:
        """Train to the end, until a signal in the batch of a number, or until killed."""
        system, train, test = self.build()
        for one in signals_in:
            _signal_in(train, *one)
        if killed_at is not None:
            kill_at(train, killed_at)
        options = {"steps": STEPS, "log_every": 1, "evaluate_every": 5, "checkpoint_every": 3}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the schedule of")
            return fit(
                system.model,
                system.guide,
                objective=system.objective,
                train=train,
                test=test,
                config=TrainConfig(**{**options, "backend": "eager", **self.config}),
                run=run,
                resume=resume,
                progress=False,
            )


def _signal_in(train: Batches, batch: int, number: signal.Signals) -> None:
    passes, taken = train.epoch, iter(range(1, 10**9))

    def epoch(*arguments: Any, **options: Any) -> Iterator[Tensor]:
        for x in passes(*arguments, **options):
            if next(taken) == batch:
                os.kill(os.getpid(), number)
            yield x

    train.epoch = epoch  # type: ignore[method-assign]


def disturb() -> None:
    """Draw from all generators, and build what takes names in Pyro's store."""
    for draw in (random.random, np.random.rand, lambda: torch.randn(3)):
        draw()
    Trial().build()


def same(one: RunFolder, other: RunFolder, *, but_checkpoints: bool = False) -> None:
    """Hold two runs to the same last checkpoint and the same records, but for seconds.

    Args:
        one: a run.
        other: the other run.
        but_checkpoints: whether they may have others beside it, as after a signal.
    """
    ends = [run.checkpoint("last") for run in (one, other)]
    assert ends[0].step == ends[1].step
    mine, theirs = (saved_tensors(last_file(run.path)) for run in (one, other))
    assert mine.keys() == theirs.keys()
    differing = [name for name in mine if not torch.equal(mine[name], theirs[name])]
    assert [name for name in differing if not name.endswith("python.1")] == []  # beartype draws
    assert ends[0].state == ends[1].state
    first, second = (
        [{k: v for k, v in r.items() if "seconds" not in k} for r in run.records()]
        for run in (one, other)
    )
    assert first == second
    assert but_checkpoints or one.steps() == other.steps()


def hold(trial: Trial, folder: Path, *, killed_in: int) -> RunFolder:
    """Kill a run in a step, go on in other objects, and compare with one that never stopped."""
    whole, broken = (RunFolder.create(folder / name, {}) for name in ("whole", "broken"))
    trial.train(whole)
    in_step = (killed_in + 1, signal.SIGKILL)  # the check before training takes a batch
    status = end_of(fork(lambda: trial.train(broken, signals_in=[in_step])))
    assert status == -signal.SIGKILL
    disturb()
    history = trial.train(broken, resume=True)
    assert history.records == list(broken.records())
    same(whole, broken)
    return broken


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_killed_run_of_every_objective_goes_on_as_if_it_had_not_been(
    name: str, tmp_path: Path
) -> None:
    small = {"hidden": [8]} if name == "factor" else {}
    killed_in = random.Random(name).randrange(4, STEPS + 1)  # after a checkpoint
    hold(Trial({"name": name, **small}), tmp_path, killed_in=killed_in)


@pytest.mark.parametrize("name", ["factor", "soft-free-bits"])
def test_recorded_steps_are_recorded_again(name: str, tmp_path: Path) -> None:
    small = {"hidden": [8]} if name == "factor" else {}
    trial = Trial({"name": name, **small}, config={"backend": "fx"})
    run = hold(trial, tmp_path, killed_in=12)
    assert sum("backend" in record for record in run.records()) == 1


@pytest.mark.parametrize("killed_in", [6, 11])
def test_a_guide_that_grows_goes_on_before_and_after_it_has_grown(
    killed_in: int, tmp_path: Path
) -> None:
    parts = {"guide": {"name": "recursive-mixture", "components": 3}}
    trial = Trial(parts=parts, config={"growth_steps": 3, "steps": 12, "backend": "fx"})
    hold(trial, tmp_path, killed_in=killed_in)


def test_clusters_start_from_data_once(tmp_path: Path) -> None:
    parts = {
        "model": {"name": "clustering-ladder"},
        "prior": {"name": "mixture", "components": 3},
        "network": {"name": "ladder-mlp", "latent_dims": (2, 1), "width": 8},
    }
    trial = Trial(parts=parts, config={"cluster_step": 6}, latent_dim=3)
    run = hold(trial, tmp_path, killed_in=9)
    assert [r["step"] for r in run.records() if "clusters" in r] == [6]


@pytest.mark.parametrize(("batch", "number"), [(10, signal.SIGTERM), (7, signal.SIGINT)])
def test_a_run_that_was_asked_to_end_goes_on_from_there(
    batch: int, number: signal.Signals, tmp_path: Path
) -> None:
    # The seventh batch is of the growth after step 4, which is undone; the tenth of step 6.
    parts = {"guide": {"name": "recursive-mixture", "components": 3}}
    trial = Trial(parts=parts, config={"growth_steps": 3, "steps": 12})
    whole, ended = (RunFolder.create(tmp_path / name, {}) for name in ("whole", "ended"))
    trial.train(whole)
    history = trial.train(ended, signals_in=[(batch, number)])
    assert history.signal == number
    assert ended.steps()[-1] == history.step == {10: 6, 7: 4}[batch]
    assert history.evaluated == history.step
    disturb()
    trial.train(ended, resume=True)
    same(whole, ended)


def kill_at(train: Batches, event: int) -> None:
    """Let this process kill itself at an event of training: a batch, or a call that writes."""
    happened = 0
    passes = train.epoch

    def happens(*, begins: bool = False) -> None:
        nonlocal happened
        happened += begins or happened > 0
        if happened == event:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any, **options: Any) -> Any:
            happens()
            return call(*arguments, **options)

        return counting

    def epoch(*arguments: Any, **options: Any) -> Iterator[Tensor]:
        for x in passes(*arguments, **options):
            happens(begins=True)
            yield x

    train.epoch = epoch  # type: ignore[method-assign]
    for name in ("fsync", "replace", "mkdir", "unlink"):
        setattr(os, name, counted(getattr(os, name)))


def test_twenty_kills_lose_no_more_than_the_steps_since_the_last_checkpoint(
    tmp_path: Path,
) -> None:
    config = {"steps": 10**6, "checkpoint_every": 2, "evaluate_every": 30}
    broken = RunFolder.create(tmp_path / "broken", {})
    generator = random.Random(0)
    before = 0
    for _ in range(20):
        event = generator.randrange(5, 45)
        trial = Trial(config=config)
        status = end_of(fork(lambda t=trial, e=event: t.train(broken, resume=True, killed_at=e)))
        assert status == -signal.SIGKILL
        logged = [record["step"] for record in broken.records()]
        there = broken.checkpoint("last").step if broken.steps() else 0
        assert logged[-1] > before  # it died in training, after steps of its own
        assert there >= max(before, logged[-1] - 2)
        before = there
    whole = RunFolder.create(tmp_path / "whole", {})
    for run in (whole, broken):
        Trial(config={**config, "steps": before + 3}).train(run, resume=True)
    same(whole, broken)
    assert not list(broken.path.rglob("*.tmp"))


def test_a_finished_run_goes_on_to_more_steps(tmp_path: Path) -> None:
    whole, longer = (RunFolder.create(tmp_path / name, {}) for name in ("whole", "longer"))
    Trial(config={"steps": 20}).train(whole)
    Trial().train(longer)
    assert Trial().train(longer, resume=True).step == STEPS  # there is nothing to do
    Trial(config={"steps": 20}).train(longer, resume=True)
    assert saved_weights(whole.path) == saved_weights(longer.path)
    with pytest.raises(ValueError, match="has 20 steps, got steps=13"):
        Trial().train(longer, resume=True)


def test_a_run_with_checkpoints_is_not_started_over(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {})
    Trial().train(run)
    with pytest.raises(FileExistsError, match="resume=True"):
        Trial().train(run)
    first = run.steps()[0]
    Trial().train(run, resume=run.checkpoint(first))
    assert [r["step"] for r in run.records() if "loss" in r] == list(range(1, STEPS + 1))


def test_a_run_killed_before_its_first_checkpoint_starts_over(tmp_path: Path) -> None:
    hold(Trial(), tmp_path, killed_in=3)


def test_a_second_process_is_refused_while_the_first_trains(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {})
    trial = Trial(config={"steps": 10**6})
    child = fork(lambda: trial.train(run))
    try:
        wait_for(lambda: bool(run.steps()), child)
        before = run.path.joinpath("metrics.jsonl").stat().st_size
        with pytest.raises(BlockingIOError, match="another one trains in"):
            trial.train(run, resume=True)
        assert run.path.joinpath("metrics.jsonl").stat().st_size >= before
    finally:
        os.kill(child, signal.SIGKILL)
        end_of(child)
    Trial(config={"steps": run.steps()[-1]}).train(run, resume=True)  # the lock went with it


def test_all_generators_go_on_from_a_saved_state() -> None:
    def draws() -> list[float]:
        return [random.gauss(0, 1), np.random.normal(), float(torch.randn(()))]

    draws()  # of normals, generators keep a second one
    state = random_state()
    first = draws()
    draws()
    set_random_state(unpack(*pack(state)))
    assert draws() == first


def test_ranks_go_on_as_if_they_had_not_been_killed(tmp_path: Path) -> None:
    trial = Trial({"name": "mae"})  # whose penalty draws noise, which is each rank's own
    runs = [RunFolder.create(tmp_path / name, {}) for name in ("whole", "broken", "more")]

    def work() -> tuple[float, int]:
        rank = ranks().index
        for run in runs:
            trial.train(run)
        disturb()
        first = runs[1].steps()[0]
        gather_objects(first)  # before the first rank removes later ones
        trial.train(runs[1], resume=runs[1].checkpoint(first))
        norm = torch.nn.BatchNorm1d(1)
        norm.running_mean.fill_(rank)
        average_norms(norm)
        return float(norm.running_mean), random.getrandbits(32)

    means, draws = zip(*on_ranks(2, work, tmp_path), strict=True)
    same(*runs[:2])
    assert means == (0.5, 0.5)
    assert draws[0] != draws[1]
    # One process draws anew what two have drawn until then, and says so.
    longer = dataclasses.replace(trial, config={"steps": STEPS + 2})
    history = longer.train(runs[2], resume=True)
    assert {"step": STEPS, "ranks": 1, "noise": "drawn anew"} in history.records
