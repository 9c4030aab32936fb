"""``dpvae train --resume``, and commands that open one of a run's checkpoints."""

import json
import os
import re
import shlex
import signal
from pathlib import Path

import numpy as np
import pytest

from pyro_dpvae.cli import main
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.training.trainer import Trainer
from tests.children import end_of, fork, wait_for
from tests.saved import last_file, saved_weights

SMALL = ["--data", "two-moons", "--latent-dim", "2", "--prior", "standard", "--backend", "eager"]


def test_one_command_starts_a_run_and_goes_on_with_it(tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    every = ["--checkpoint-every", "2"]
    assert main(["train", *SMALL, *every, "--steps", "6", "--out", str(whole)]) == 0
    assert main(["train", *SMALL, *every, "--steps", "3", "--resume", str(run)]) == 0
    moved = run.rename(tmp_path / "moved")
    assert main(["train", "--resume", str(moved), "--steps", "6"]) == 0
    assert saved_weights(moved) == saved_weights(whole)
    config = RunFolder(moved).config
    assert config == RunFolder(whole).config
    assert main(["train", f"--resume={moved}", "--epochs", "1"]) == 0
    assert RunFolder(moved).checkpoint().step == 20
    assert [r["step"] for r in RunFolder(moved).records() if "held_out" in r] == [3, 6, 20]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    arguments = ["--steps", "4", "--evaluate-every", "2", "--out", str(out)]
    assert main(["train", *SMALL, *arguments]) == 0
    return out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "1"], "must not change .*seed from 0 to 1; only checkpoint_every, "),
        (["--prior", "coupling"], "would change --prior from 'standard' to 'coupling'; "),
        (["--steps", "3"], "has 4 steps, got steps=3; use more steps"),
        (["--data", "digits"], "got data digits for one on two-moons"),
        (["--checkpoint", "bset"], "checkpoint must be last, best or a step; got 'bset'"),
        (["--out", "elsewhere"], "got --out beside --resume"),
        (["--checkpoint", "3"], "a step of 2, 4; .* has no checkpoint 3"),
    ],
)
def test_what_would_make_it_another_run_is_refused(
    arguments: list[str], message: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    assert main(["train", "--resume", str(trained), *arguments]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert "Traceback" not in error
    assert {path: path.read_bytes() for path in before} == before


def test_a_resumed_run_says_where_it_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    command = ["train", "--resume", str(run)]
    assert main(command) == 2
    assert f"{run} holds no run yet; to start one there, give --data" in capsys.readouterr().err
    for arguments, message in (
        ([*SMALL, "--steps", "2"], f"starts a run in {run}\n"),
        (["--steps", "4"], "run goes on from step 2 of 4\n"),
        ([], "run has all its 4 steps; give more with --steps\n"),
    ):
        assert main([*command, *arguments]) == 0
        assert message in capsys.readouterr().err
    (run / "config.json").write_text("{")
    assert main(command) == 2
    assert f"config.json of {run} is damaged" in capsys.readouterr().err


def test_data_of_a_run_may_move_and_not_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    np.save("here.npy", values)
    start = ["train", "--data", "here.npy", "--prior", "standard", "--backend", "eager"]
    assert main([*start, "--steps", "2", "--out", "run"]) == 0
    assert RunFolder(Path("run")).config["data"] == str(tmp_path / "here.npy")
    Path("here.npy").rename("there.npy")
    np.save("other.npy", values + 1)
    measure = ["evaluate", "run", "--metrics", "elbo"]
    go_on = ["train", "--resume", "run", "--steps", "3"]
    for command in (measure, go_on):
        assert main(command) == 2
        assert "give the place where it is now" in capsys.readouterr().err
    assert main([*go_on, "--data", "other.npy"]) == 2
    assert (
        "of other values; give as data the path where those of run are now"
        in capsys.readouterr().err
    )
    assert main([*measure, "--data", "there.npy"]) == 0
    assert main([*go_on, "--data", "there.npy"]) == 0
    assert main(measure) == 0


def test_a_checkpoint_without_a_run_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SMALL, "--checkpoint", "3"]) == 2
    assert "got --checkpoint 3 without one; add --resume RUN" in capsys.readouterr().err


def test_commands_open_the_checkpoint_that_they_are_asked_for(trained: Path) -> None:
    drawn = {}
    for which in ("last", "best", "2", "4"):
        out = trained / f"{which}.png"
        assert main(["sample", str(trained), "--checkpoint", which, "--out", str(out)]) == 0
        drawn[which] = np.load(out.with_suffix(".npy"))
    assert np.array_equal(drawn["last"], drawn["4"])
    assert not np.array_equal(drawn["2"], drawn["4"])
    held_out = {
        r["step"]: r["held_out"]["elbo"] for r in RunFolder(trained).records() if "held_out" in r
    }
    assert np.array_equal(drawn["best"], drawn[str(max(held_out, key=held_out.__getitem__))])
    evaluation = ["--metrics", "split", "--latent-samples", "50"]
    for which in ("4", "2"):
        assert main(["evaluate", str(trained), "--checkpoint", which, *evaluation]) == 0
        basis = json.loads((trained / "evaluation.json").read_text())["basis"]
        assert basis["run"] == RunFolder(trained).checkpoint(int(which)).digest


def test_the_command_of_the_message_goes_on_from_the_checkpoint_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    arguments = ["--steps", "5", "--checkpoint-every", "2", "--out", str(out)]
    assert main(["train", *SMALL, *arguments]) == 0
    before = saved_weights(out)
    file = last_file(out)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    for command in (["train", "--resume", str(out)], ["sample", str(out)]):
        assert main(command) == 2
    error = capsys.readouterr().err
    command = re.search(r"resume with: dpvae (.*)", error)
    assert command is not None
    assert main(shlex.split(command[1])) == 0
    assert saved_weights(out) == before


def test_a_second_sigterm_ends_a_run_at_once_and_says_how_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(*_: object) -> None:
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Trainer, "_log", killed)
    assert main(["train", *SMALL, "--steps", "9", "--out", str(tmp_path), "--log-every=2"]) == 143
    error = capsys.readouterr().err
    assert f"interrupted; the run goes on with: dpvae train --resume {tmp_path}\n" in error


def test_sigterm_ends_a_run_with_a_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "run"

    def work() -> None:
        endless = ["--steps", "1000000", "--log-every", "1", "--out", str(out)]
        os._exit(main(["train", *SMALL, *endless]))

    child = fork(work)
    metrics = out / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and '"loss"' in metrics.read_text(), child)
    os.kill(child, signal.SIGTERM)
    assert end_of(child) == 143
    run = RunFolder(out)
    assert run.checkpoint().step == list(run.records())[-1]["step"]
