"""What a run's configuration asks for beside steps: in the loop, in checkpoints, on resuming."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from torch import Tensor

from pyro_dpvae.data import Batches, load
from pyro_dpvae.objectives import BetaELBO, CosineSchedule, LinearSchedule
from pyro_dpvae.recipes import System
from pyro_dpvae.runs import Checkpoint, RunFolder
from pyro_dpvae.training import AbstractCallback, History, TrainConfig, evaluate_elbo, fit
from pyro_dpvae.training.callbacks import Context
from tests.moons import moons_system
from tests.saved import last_file, saved_tensors


class Killed(RuntimeError):
    """What ends a process in these tests."""


class Watch(AbstractCallback):
    """Notes what it is called for, and dies after the record of a step."""

    def __init__(self, *, dies_at: int | None = None) -> None:
        self.calls: list[str] = []
        self.dies_at = dies_at

    def started(self, context: Context) -> None:
        self.calls.append(f"started at {context.step}")

    def recorded(self, record: dict[str, Any]) -> None:
        self.calls.append("recorded")
        if record["step"] == self.dies_at:
            raise Killed

    def checkpointed(self, path: Path) -> None:
        self.calls.append(f"checkpointed {int(path.stem)}")
        assert path.is_file()

    def ended(self, history: History) -> None:
        self.calls.append("ended")


def train(
    run: RunFolder | None,
    *,
    watch: Watch | list[Watch] | None = None,
    resume: bool | Checkpoint = False,
    bad: int | None = None,
    bad_held_out: bool = False,
    beta: float = 1.0,
    **options: Any,
) -> tuple[System, History]:
    """Train on two moons, as a new process would."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    system = moons_system()
    objective = BetaELBO(LinearSchedule(0.0, beta, 10))
    data = load("two-moons")
    batches = [
        Batches(split, batch_size=100, preprocessing="none", seed=0)
        for split in (data.train, data.test)
    ]
    if bad is not None:
        spoil(batches[0], bad)
    if bad_held_out:
        spoil(batches[1], 0, torch.nan)
    history = fit(
        system.model,
        system.guide,
        objective=objective,
        train=batches[0],
        test=batches[1],
        config=TrainConfig(**{"steps": 24, "log_every": 1, "evaluate_every": 8, **options}),
        run=run,
        resume=resume,
        callbacks=[watch] if isinstance(watch, Watch) else watch or [],
        progress=False,
    )
    return system, history


def spoil(batches: Batches, number: int, value: float = 1e30) -> None:
    """Let the batch of a number in its pass overflow."""
    whole = batches.epoch

    def epoch(number_of_pass: int, start: int = 0, *, stride: int = 1) -> Iterator[Tensor]:
        assert stride == 1  # on one rank
        for place, x in enumerate(whole(number_of_pass)):
            if place >= start:
                yield torch.full_like(x, value) if place == number else x

    batches.epoch = epoch  # type: ignore[method-assign]


def tensors(run: RunFolder) -> dict[str, Tensor]:
    return saved_tensors(last_file(run.path))


OPTIONS: dict[str, Any] = {
    "learning_rate": CosineSchedule(1e-2, 0.0, 24),
    "warmup_steps": 4,
    "clip_norm": 0.5,  # which cuts every update
    "accumulate": 2,
    "average_decay": 0.9,
    "nonfinite": "skip",
    "precision": "bfloat16",
    "monitor": "loss",
    "patience": 5,
    "checkpoint_every": 5,
}


@pytest.mark.parametrize("optimizer", ["adam", "adamax"])
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path: Path, optimizer: str) -> None:
    """Killed between two updates, with a step to come that is skipped, and all options on."""
    options = {**OPTIONS, "optimizer": optimizer}
    runs = [RunFolder.create(tmp_path / name, {}) for name in ("whole", "killed")]
    whole = Watch()
    with pytest.warns(UserWarning, match="step 6 is skipped because"):
        train(runs[0], watch=whole, bad=5, **options)
    with (
        pytest.warns(UserWarning, match="step 6 is"),
        pytest.raises(Killed),
    ):
        train(runs[1], watch=Watch(dies_at=7), bad=5, **options)
    watch = Watch()
    with pytest.warns(UserWarning, match="is skipped"):
        _, history = train(runs[1], watch=watch, resume=True, bad=5, **options)
    assert watch.calls[0] == "started at 5"
    assert watch.calls[-1] == whole.calls[-1] == "ended"
    assert [call for call in whole.calls if "checkpointed" in call] == [
        f"checkpointed {step}" for step in (5, 8, 10, 15, 16, 20, 24)
    ]
    expected, found = tensors(runs[0]), tensors(runs[1])
    assert found.keys() == expected.keys()
    assert {name.split(".")[1] for name in found} >= {"model", "guide", "average", "updates"}
    for name, tensor in expected.items():  # beartype draws by Python's generator
        assert torch.equal(found[name], tensor) or ".python." in name, name
    records = [[*run.records()] for run in runs]
    for record in (r for own in records for r in own):
        record.pop("seconds", None)
        record.pop("recorded_seconds", None)
    assert records[0] == records[1] == json.loads(json.dumps(without_seconds(history)))
    rates = {r["step"]: r["learning_rate"] for r in records[0] if "learning_rate" in r}
    assert rates[1] == pytest.approx(1e-2 / 4)
    assert rates[13] == pytest.approx(CosineSchedule(1e-2, 0.0, 24)(12))
    assert "loss" not in next(r for r in records[0] if r["step"] == 6)
    assert records[0][-2]["left_out"] >= 1


def without_seconds(history: History) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in record.items() if k not in ("seconds", "recorded_seconds")}
        for record in history.records
    ]


def test_what_is_evaluated_is_the_average(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {})
    raw, history = train(run, average_decay=0.9, learning_rate=1e-2)
    assert history.records[-1]["weights"] == "average"
    data = load("two-moons")
    test = Batches(data.test, batch_size=100, preprocessing="none", seed=0)
    averaged = moons_system()
    modules = {"model": averaged.model, "guide": averaged.guide}
    run.checkpoint("last").load(modules, weights="average")
    assert evaluate_elbo(averaged.model, averaged.guide, test) == history.held_out
    assert evaluate_elbo(raw.model, raw.guide, test) != history.held_out


def test_training_ends_when_it_brings_no_improvement(tmp_path: Path) -> None:
    """With a learning rate of zero nothing improves once the schedule of beta is over."""
    run = RunFolder.create(tmp_path / "run", {})
    options: dict[str, Any] = {
        "learning_rate": lambda step: 0.0,
        "evaluate_every": 2,
        "patience": 3,
        "steps": 40,
    }
    _, history = train(run, **options)
    # After 10 steps beta is that of the last of them, 0.9. Evaluated at 12, when it has got to 1,
    # and without improvement at 14, 16 and 18.
    assert (history.stopped, history.step, history.evaluated) == (True, 18, 18)
    assert run.checkpoint("best").step == 12
    _, resumed = train(run, resume=True, **options)
    assert (resumed.stopped, resumed.step) == (True, 18)
    _, patient = train(run, resume=True, **{**options, "patience": 5})
    assert (patient.stopped, patient.step) == (True, 22)
    assert {"step": 18, "changed": {"patience": 5}} in patient.records


@pytest.mark.parametrize("kind", [np.float32, np.float64, torch.tensor])
def test_learning_rates_may_be_numbers_of_other_libraries(tmp_path: Path, kind: Any) -> None:
    """A function that returns np.float32(0.0625) trains as 0.0625 does, and is recorded so."""
    found = []
    for convert in (float, kind):
        run = RunFolder.create(tmp_path / convert.__name__, {})
        options: dict[str, Any] = {
            "learning_rate": lambda step, convert=convert: convert(0.0625 / 2 ** (step // 4)),
            "log_every": 1,
        }
        raw, _ = train(run, steps=12, **options)
        lines = (run.path / "metrics.jsonl").read_text().splitlines()
        rates = [json.loads(line).get("learning_rate") for line in lines]
        found.append(([one.detach() for one in raw.model.parameters()], rates))
    assert all(torch.equal(one, two) for one, two in zip(found[0][0], found[1][0], strict=True))
    assert found[0][1] == found[1][1]
    assert {0.0625, 0.03125} <= set(found[1][1])


def test_a_run_that_stops_at_nan_leaves_its_batch_and_its_last_checkpoint(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {})
    with pytest.raises(ValueError, match=r"at step 7: the loss is inf; .*distortion is inf"):
        train(run, bad=6, checkpoint_every=5)
    assert (run.path / "nonfinite" / "step-7.safetensors").exists()
    assert run.checkpoint("last").step == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"accumulate": 21}, "got 21 of them and 20 steps, in which there is none"),
        ({"clip_norm": 0.0}, "clip_norm must be positive"),
        ({"average_decay": 1.5}, "average_decay must lie between 0 and 1, got 1.5; use 0.999"),
        ({"nonfinite": "ignore"}, "nonfinite must be one of skip, stop; got 'ignore'"),
        ({"precision": "half"}, "precision must be one of bfloat16, float32; got 'half'"),
        ({"optimizer": "sgd"}, "optimizer must be one of adam, adamax; got 'sgd'"),
        ({"monitor": "fid"}, "monitor must be one of elbo, loss; got 'fid'"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"warmup_steps": 0}, "warmup_steps must be at least 1"),
        (
            {"learning_rate": LinearSchedule(1.0, -1.0, 10)},
            "0 or more and finite, got -1.0 at step 19",
        ),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(steps=20, **options)


def test_a_cuda_graph_neither_sums_gradients_nor_takes_slow_optimizers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ValueError, match="a CUDA graph is of steps that all update, got"):
        TrainConfig(steps=20, backend="cudagraph", accumulate=2)
    with pytest.raises(ValueError, match="needs an optimizer that has a fused kernel, got"):
        TrainConfig(steps=20, backend="cudagraph", optimizer="adamax")
