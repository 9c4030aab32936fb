"""Objectives and schedules on the command line and in configuration files."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pyro_dpvae.cli import main
from pyro_dpvae.objectives import OBJECTIVES
from pyro_dpvae.runs import RunFolder
from tests.saved import last_file, saved_tensors

pytestmark = pytest.mark.filterwarnings("always:the schedule of")

# Recorded steps of every objective are those of test_captured.py.
FAST = ["--data", "two-moons", "--batch-size", "20", "--latent-dim", "2", "--backend", "eager"]


def train(*arguments: str, steps: int = 4) -> int:
    return main(["train", *FAST, *arguments, "--steps", str(steps)])


def objective_of(out: Path) -> Any:
    return next(iter(RunFolder(out).records()))["objective"]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains_and_samples(name: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    quick = ["--objective.hidden", "[8]"] if name == "factor" else []
    assert train("--objective", name, *quick, "--out", str(out)) == 0
    assert main(["sample", str(out), "--number", "3"]) == 0
    assert objective_of(out)["name"] == OBJECTIVES[name].__name__


def test_the_estimator_and_the_data_set_size_are_logged(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train("--objective", "beta-tc", "--objective.beta", "6", "--out", str(out)) == 0
    (penalty,) = objective_of(out)["penalties"]
    assert penalty["estimator"] == "stratified"
    assert penalty["dataset_size"] == 2000
    assert penalty["total_correlation"] == 5.0
    records = [record for record in RunFolder(out).records() if "loss" in record]
    terms = {"mutual_information", "total_correlation", "dimension_wise_kl"}
    assert all(terms <= set(record) for record in records)


SCHEDULE = ("--objective.schedule.beta", "linear", "--objective.schedule.beta.steps", "4")


@pytest.mark.parametrize(("steps", "beta"), [(1, 0.0), (3, 4.0), (5, 8.0), (6, 8.0)])
def test_a_schedule_ends_at_the_weight(steps: int, beta: float, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ("--objective", "beta", "--objective.beta", "8", *SCHEDULE)
    assert train(*arguments, "--out", str(out), steps=steps) == 0
    (last,) = [record for record in RunFolder(out).records() if "loss" in record]
    charged = (last["loss"] - last["distortion"]) / last["rate"]
    assert charged == pytest.approx(beta, abs=1e-3)
    assert objective_of(out)["rate"]["beta"] == "LinearSchedule(0, 8, 4)"


def test_a_configuration_file_holds_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--objective", "beta-tc", "--objective.beta", "6", *SCHEDULE]
    arguments[arguments.index("linear")] = "cyclic"
    arguments += ["--objective.schedule.beta.cycles", "2", "--objective.estimator", "in-batch"]
    out = tmp_path / "run"
    assert train(*arguments, "--out", str(out)) == 0
    config = tmp_path / "config.yaml"
    section = json.loads((out / "config.json").read_text())["objective"]
    config.write_text(yaml.safe_dump({"objective": section}))
    again = tmp_path / "again"
    assert train("--config", str(config), "--out", str(again)) == 0
    assert objective_of(again) == objective_of(out)
    assert "cycles=2" in objective_of(out)["penalties"][0]["total_correlation"]
    last = [list(RunFolder(path).records())[-1] for path in (out, again)]
    assert last[0] == last[1]

    minimal = {"objective": {"name": "beta", "schedule": {"beta": {"name": "cosine", "steps": 4}}}}
    config.write_text(yaml.safe_dump(minimal))
    third = tmp_path / "third"
    assert train("--config", str(config), "--out", str(third)) == 0
    assert objective_of(third)["rate"]["beta"] == "CosineSchedule(0, 4, 4)"
    # What is given after a file wins.
    fourth = tmp_path / "fourth"
    given = ["--objective.beta", "2", "--objective.schedule.beta.start", "1"]
    assert train("--config", str(config), *given, "--out", str(fourth)) == 0
    assert objective_of(fourth)["rate"]["beta"] == "CosineSchedule(1, 2, 4)"
    off = tmp_path / "off"
    given = ["--objective.schedule.beta", "constant"]
    assert train("--config", str(config), *given, "--out", str(off)) == 0
    assert objective_of(off)["rate"]["beta"] == 4.0
    # A part that is named otherwise loses the file's options, and steps its epochs.
    fifth = tmp_path / "fifth"
    given = ["--objective", "info", "--prior", "standard", "--out", str(fifth)]
    assert train("--config", str(out / "config.json"), *given) == 0
    assert objective_of(fifth)["name"] == "InfoELBO"
    assert RunFolder(fifth).config["prior"] == {"name": "standard"}
    sixth = tmp_path / "sixth"
    given = [f"--config={out / 'config.json'}", "--epochs", "1", "--out", str(sixth)]
    assert main(["train", *given, "--batch-size", "1000"]) == 0
    assert RunFolder(sixth).steps() == [2]
    capsys.readouterr()


def test_a_schedule_longer_than_the_run_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train("--objective", "capacity", "--out", str(out)) == 0
    error = capsys.readouterr().err
    assert "dpvae train: warning: the schedule of rate.capacity takes 100000 steps" in error
    assert "the run has 4" in error
    constant = ["--objective.schedule.capacity", "constant", "--objective.capacity", "5"]
    assert train("--objective", "capacity", *constant, "--out", str(tmp_path / "b")) == 0
    assert "warning" not in capsys.readouterr().err


def test_help_shows_the_weights_and_their_schedules(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--objective", "beta-tc", *SCHEDULE, "--help"])
    text = capsys.readouterr().out
    for option in ("beta", "alpha", "gamma", "estimator", "schedule.beta", "schedule.beta.steps"):
        assert re.search(rf"--objective\.{re.escape(option)}\b", text), option


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--objective", "beta", "--objective.beta", "-1"],
            "--objective.beta must be 0 or more, got -1",
        ),
        (["--objective", "info", "--objective.alpha", "2"], "alpha must be at most 1 in InfoVAE"),
        (["--objective", "beta-tc", "--objective.estimator", "mws"], "estimator must be one of"),
        (
            ["--objective", "beta", SCHEDULE[0], "exponential", *SCHEDULE[2:]],
            "an exponential schedule needs positive weights",
        ),
        (
            ["--objective", "factor", "--batch-size", "1999"],
            "at least 4 items per batch, and batches of 1999 leave 1 of the 2000 items for the "
            "last one; choose another --batch-size",
        ),
    ],
)
def test_bad_objectives_are_one_clear_error_before_training(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(*arguments, "--out", str(out)) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert len(error.strip().splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--objective.schedule.beta", "linear"],
        ["--objective.schedule.beta.steps", "5"],
        ["--objective.schedule.beta", "stepwise"],
        ["--objective.schedule.gamma", "linear", "--objective.schedule.gamma.steps", "3"],
        ["--objective.dataset_size", "3"],
    ],
)
def test_unknown_or_missing_options_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--objective", "beta", *arguments) == 2
    key = re.sub(r"--|\.(beta|gamma)(\.steps)?$", "", arguments[0])
    assert key in capsys.readouterr().err


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "beta", "schedule": "linear"}, "objective.schedule must map weights to sched"),
        ({"name": "beta", "schedule": {"beta": "linear"}}, "write schedule: {beta: {name: linear"),
    ],
)
def test_schedules_that_are_no_mappings_are_refused(
    section: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"objective": section}))
    assert train("--config", str(config), "--out", str(tmp_path / "run")) == 2
    assert message in capsys.readouterr().err


def test_a_schedule_without_its_weight_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--objective", "beta", "--objective.schedule", "linear") == 2
    assert "write --objective.schedule.beta linear" in capsys.readouterr().err


def test_the_adversary_is_part_of_the_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ["--objective", "factor", "--objective.hidden", "[8]"]
    assert train(*options, "--out", str(out)) == 0
    weights = saved_tensors(last_file(out), "weights.")
    assert weights["objective.penalties.0.adversary.network.0.weight"].shape == (8, 2)
    assert float(weights["objective.penalties.0.adversary.optimizer.0.step"]) == 4.0
    assert int(weights["objective.step"]) == 4
