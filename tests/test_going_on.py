"""How runs go on: with other settings or none but theirs, with lost records, after errors."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from pyro_dpvae.cli import main
from pyro_dpvae.errors import CheckpointError
from pyro_dpvae.objectives import InfoELBO
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.runs.identity import run_id
from pyro_dpvae.training import History, NonFiniteError, TrainConfig
from pyro_dpvae.training.guard import GuardedSteps
from pyro_dpvae.training.settings import check_settings, differences, settings_of
from tests.test_training_options import Killed, Watch, train

EAGER: dict[str, Any] = {"backend": "eager"}


def created(folder: Path) -> RunFolder:
    return RunFolder.create(folder / "run", {})


def test_a_run_that_stopped_goes_on_by_the_remedies_that_its_error_names(tmp_path: Path) -> None:
    run = created(tmp_path)
    with pytest.raises(NonFiniteError, match=f"resume the run in {run.path}"):
        train(run, bad=6, checkpoint_every=5, **EAGER)
    assert run.checkpoint().step == 5
    options = {"nonfinite": "skip", "clip_norm": 0.5, "learning_rate": 1e-4}
    with pytest.warns(UserWarning, match="step 7 is skipped"):
        _, history = train(run, resume=True, bad=6, **options, **EAGER)
    assert history.step == 24
    assert {"step": 5, "changed": {**options}} in history.records
    steps = {record["step"]: record for record in history.records if "seconds" in record}
    assert "gradient_norm" not in steps[5]
    assert steps[6]["gradient_norm"] > 0.5
    assert "gradient_norm" not in steps[7]
    assert history.records[0]["device"] == "cpu"
    assert "torch" in history.records[0]["versions"]


def test_what_makes_it_another_run_is_refused_by_name(tmp_path: Path) -> None:
    run = created(tmp_path)
    train(run, **EAGER)
    for name, was, value in (
        ("accumulate", 1, 2),
        ("average_decay", None, 0.9),
        ("seed", 0, 1),
        ("precision", "float32", "bfloat16"),
    ):
        with pytest.raises(ValueError, match=f"{name} from {was!r} to {value!r}; "):
            train(run, resume=True, **{name: value}, **EAGER)
    with pytest.raises(
        ValueError, match=r"objective\.rate\.beta from 'LinearSchedule\(0, 1, 10\)' to 'L"
    ):
        train(run, resume=True, beta=2.0, **EAGER)


def test_weights_alone_are_no_state_to_go_on_from(tmp_path: Path) -> None:
    run = created(tmp_path)
    run.save({}, {"step": 5})
    with pytest.raises(ValueError, match="has weights but no training state"):
        train(run, resume=True, **EAGER)


def test_lost_records_are_said_and_the_rest_is_whole(tmp_path: Path) -> None:
    run = created(tmp_path)
    train(run, steps=16, **EAGER)
    path = run.path / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    _, history = train(run, resume=True, **EAGER)
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert lines == history.records
    missing = {"bytes": len(whole.splitlines(keepends=True)[-1]), "after_step": 16}
    assert {"step": 16, "missing": missing} in lines
    assert [r["step"] for r in lines if "loss" in r] == list(range(1, 25))
    path.write_bytes(b"x\n" + whole)
    with pytest.raises(ValueError, match=f"line 1 of {path}"):
        train(run, resume=True, **EAGER)


def test_a_run_that_ended_before_its_schedules_has_its_best_after_them(tmp_path: Path) -> None:
    """The loss under a small beta, at step 8, is less than any later one."""
    run = created(tmp_path)
    options: dict[str, Any] = {"learning_rate": lambda _: 0.0, "monitor": "loss", **EAGER}
    with pytest.warns(UserWarning, match="the run ends before the schedule does"):
        train(run, steps=8, **options)
    assert run.checkpoint("best").step == 8
    train(run, resume=True, steps=32, **options)
    assert run.checkpoint("best").step == 16


def falling(slope: float, step: int) -> float:
    return max(0.0, 1.0 - slope * step)


class Falling:
    """A weight that is no function."""

    def __call__(self, step: int) -> float:
        return falling(0.25, step)


@pytest.mark.parametrize(
    "made",
    [lambda: partial(falling, 0.25), lambda: lambda step: falling(0.25, step), Falling],
    ids=["partial", "lambda", "object"],
)
def test_weights_and_rates_by_functions_are_the_same_in_another_process(made: Any) -> None:
    kept = [made(), made()]  # of different addresses
    settings = [
        settings_of(
            TrainConfig(steps=4, learning_rate=one),
            InfoELBO(alpha=one),
        )
        for one in kept
    ]
    assert settings[0] == settings[1]
    assert "0x" not in json.dumps(settings)
    old = {"objective.rate.beta": "<function warm_up at 0x7fdaab61bb00>"}
    assert differences(old, {"objective.rate.beta": "warm_up"}) == {}


def test_the_last_loss_under_a_moving_weight_is_not_compared_with_those_after_it(
    tmp_path: Path,
) -> None:
    """Evaluated after 10 steps, the loss is that of the last of them, of 0.9 times the weight."""
    run = created(tmp_path)
    options: dict[str, Any] = {"monitor": "loss", "patience": 2, "evaluate_every": 10}
    _, history = train(run, beta=8.0, learning_rate=lambda _: 0.0, steps=30, **options, **EAGER)
    losses = [one["held_out"]["loss"] for one in history.records if "held_out" in one]
    assert losses[0] < min(losses[1:])
    assert run.checkpoint("best").step > 10
    assert not history.stopped


def test_a_checkpoint_that_was_replaced_since_it_was_read_is_refused(tmp_path: Path) -> None:
    run = created(tmp_path)
    train(run, steps=16, **EAGER)
    early = run.checkpoint()
    run.save({"model": nn.Linear(2, 2)}, {"step": 16})
    with pytest.raises(ValueError, match="has changed since"):
        train(run, resume=early, **EAGER)


def test_the_last_checkpoint_is_read_under_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "run")
    small = ["--data", "two-moons", "--latent-dim", "2", "--prior", "standard"]
    assert main(["train", *small, "--steps", "2", "--backend", "eager", "--out", out]) == 0
    seen: list[Any] = []

    def fit(*_: Any, resume: Any, **__: Any) -> History:
        seen.append(resume)
        raise ValueError("seen")

    monkeypatch.setattr("pyro_dpvae.recipes.training.fit", fit)
    assert main(["train", "--resume", out, "--nonfinite", "skip"]) == 2
    assert main(["train", "--resume", out, "--checkpoint", "2"]) == 2
    assert seen[0] is True
    assert seen[1].step == 2
    assert RunFolder(Path(out)).config["nonfinite"] == "skip"


def test_no_checkpoint_is_written_of_steps_that_were_left_out_unnoticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where steps are CUDA graphs."""
    begin = GuardedSteps.__init__

    def unseeing(self: GuardedSteps, *arguments: Any, **options: Any) -> None:
        begin(self, *arguments, **options)
        self._looks = False

    monkeypatch.setattr(GuardedSteps, "__init__", unseeing)
    run = created(tmp_path)
    with pytest.raises(NonFiniteError, match="1 of the steps before step 11"):
        train(run, bad=6, log_every=100, checkpoint_every=5, evaluate_every=100, **EAGER)
    assert run.steps() == [5]


def test_a_held_out_evaluation_that_is_not_finite_says_where(tmp_path: Path) -> None:
    run = created(tmp_path)
    with (
        pytest.warns(UserWarning, match="step 7 is skipped"),
        pytest.raises(NonFiniteError) as caught,
    ):
        train(run, bad=6, nonfinite="skip", bad_held_out=True, **EAGER)
    message = str(caught.value)
    assert "the held-out evaluation after step 8 is not finite: Expected parameter" in message
    assert "the first site is 'z', whose value is not finite" in message
    assert list(run.records())[-1] == {"step": 8, "left_out": 1}


class Failing(Watch):
    """Fails at the end."""

    def ended(self, history: History) -> None:
        super().ended(history)
        raise OSError("disk full")


def test_all_callbacks_hear_of_the_end_and_the_first_error_stays() -> None:
    failing, heard = Failing(), Watch()
    with pytest.raises(OSError, match="disk full"):
        train(None, watch=[failing, heard], **EAGER)
    assert heard.calls[-1] == "ended"
    dying = Watch(dies_at=7)
    with pytest.raises(Killed) as caught:
        train(None, watch=[failing, dying], **EAGER)
    assert dying.calls[-1] == "ended"
    assert "disk full" in caught.value.__notes__[0]


def test_a_run_from_before_an_option_was_added_goes_on_with_its_usual_value() -> None:
    old: dict[str, Any] = {"data": "two-moons", "latent_dim": 2, "steps": 5}
    assert run_id({**old, "optimizer": "adam"}) == run_id(old)
    assert run_id({**old, "optimizer": "adamax"}) != run_id(old)
    settings = {"seed": 0, "accumulate": 1}
    check_settings(settings, {**settings, "optimizer": "adam"}, where="x")
    with pytest.raises(ValueError, match="optimizer from 'adam' to 'adamax'"):
        check_settings(settings, {**settings, "optimizer": "adamax"}, where="x")


def test_a_checkpoint_is_of_its_run_by_its_configuration_whatever_options_are_added_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder.create(tmp_path / "run", {"latent_dim": 2, "gain": 1})
    run.save({"model": nn.Linear(2, 2)}, {"step": 5})
    earlier = run.id
    monkeypatch.setattr("pyro_dpvae.runs.changes.ADDED", {"gain": 1})
    assert run.id != earlier
    assert run.checkpoint().run == run.id
    run.write("config.json", {"latent_dim": 2})
    assert run.checkpoint().step == 5
    run.write("config.json", {"latent_dim": 3})
    with pytest.raises(CheckpointError, match="latent-dim from 2 to 3"):
        run.checkpoint()
