"""What is around the steps of a run, from the command line to the weights that are opened."""

import json
from pathlib import Path

import numpy as np
import pytest

from pyro_dpvae.cli import main
from pyro_dpvae.objectives import CosineSchedule
from pyro_dpvae.recipes import open_run
from pyro_dpvae.runs import RunFolder
from tests.test_training_features import read

MOONS = ["train", "--data", "two-moons", "--batch-size", "100", "--prior.blocks", "1"]


def test_a_run_has_what_its_options_ask_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    options = [
        *("--steps", "60", "--evaluate-every", "20", "--warmup-steps", "10"),
        *("--learning-rate", "0.01", "--learning-rate-schedule", "cosine"),
        *("--learning-rate-schedule.end=0.001", "--average-decay", "0.9", "--accumulate", "2"),
        *("--clip-norm", "100", "--tensorboard", "--monitor", "loss", "--patience", "9"),
    ]
    assert main([*MOONS, *options, "--out", str(out)]) == 0
    run = RunFolder(out)
    schedule = {"name": "cosine", "end": 0.001, "steps": 60}
    assert run.config["learning_rate_schedule"] == schedule
    records = list(run.records())
    logged = {r["step"]: r for r in records if "learning_rate" in r}
    assert logged[50]["learning_rate"] == pytest.approx(CosineSchedule(0.01, 0.001, 60)(49))
    held_out = [(r["step"], r["held_out"]["elbo"]) for r in records if "held_out" in r]
    assert read(out / "tensorboard")["held_out/elbo"] == [
        (step, pytest.approx(elbo)) for step, elbo in held_out
    ]

    averaged, raw = open_run(out), open_run(out, weights="raw")
    assert (averaged.weights, raw.weights) == ("average", "raw")
    samples = []
    for options in ([], ["--weights", "average"], ["--weights", "raw"]):
        assert main(["sample", str(out), *options]) == 0
        samples.append(np.load(out / "samples.npy"))
    assert np.array_equal(samples[0], samples[1])
    assert not np.array_equal(samples[0], samples[2])
    for options, basis in ((["--weights", "raw"], None), ([], "average")):
        assert main(["evaluate", str(out), "--metrics", "elbo", *options]) == 0
        content = json.loads((out / "evaluation.json").read_text())
        assert content["basis"].get("weights") == basis

    assert main(["train", "--resume", str(out), "--steps", "80"]) == 0
    assert run.config["learning_rate_schedule"] == schedule
    assert run.checkpoint().step == 80
    assert [step for step, _ in read(out / "tensorboard")["held_out/elbo"]] == [20, 40, 60, 80]
    capsys.readouterr()


def test_a_run_without_an_average_has_none_to_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main([*MOONS, "--steps", "3", "--out", str(out)]) == 0
    assert main(["sample", str(out), "--weights", "average"]) == 2
    assert "has no average of weights; use 'raw' weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--accumulate", "0"], "accumulate must be at least 1"),
        (["--average-decay", "2"], "--average-decay must lie between 0 and 1, got 2"),
        (["--learning-rate-schedule", "exponential"], "needs positive weights, got 0.001 and 0"),
        (["--learning-rate-schedule", "sideways"], "--learning-rate-schedule must be one of"),
        (["--learning-rate-schedule", "linear", "--learning-rate-schedule.end=-1"], "got -1.0"),
        (["--patience", "-1"], "patience must be at least 1"),
    ],
)
def test_bad_options_leave_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    out = tmp_path / "run"
    assert main([*MOONS, "--steps", "3", "--out", str(out), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (out / "config.json").exists()
