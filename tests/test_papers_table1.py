"""``python -m papers.dpvae table1``: the same table, whatever interrupts it."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from papers.dpvae import child as child_of_jobs
from papers.dpvae import command_table1, jobs
from papers.dpvae.__main__ import main
from papers.dpvae.claims import claims_of
from papers.dpvae.markdown import as_markdown
from papers.dpvae.study import Study, alone, remember
from papers.dpvae.table import over_all, table_of
from papers.dpvae.words import verdict_line
from pyro_dpvae import cli
from pyro_dpvae.recipes import REGULARIZERS
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.training.trainer import Trainer
from tests.children import end_of, fork, wait_for
from tests.forked_jobs import ForkedProcess
from tests.saved import saved_weights
from tests.waiting import TIME_LIMIT, wait_until

STUDY = ["table1", "--data", "two-moons", "--regularizers", "beta-vae-b"]
STUDY += ["--steps", "20", "--seeds", "2", "--override", "backend=eager", "--jobs", "2"]
STUDY += ["--nll-samples", "20", "--nll-data", "8", "--latent-samples", "40", "--out"]
FORKS = SimpleNamespace(Popen=ForkedProcess, PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT)
RECIPES = ("two-moons-beta-vae-b", "two-moons-beta-vae-b-dp")


@pytest.fixture(scope="module", autouse=True)
def forked() -> Iterator[None]:
    """Jobs are forks of this process, unless a test starts them as users do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "subprocess", FORKS)
        yield


@pytest.fixture(scope="module")
def whole(forked: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that nothing has interrupted."""
    out = tmp_path_factory.mktemp("whole")
    assert main([*STUDY, str(out)]) == 0
    return out


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No job starts a process."""
    monkeypatch.setattr(jobs, "_Process", lambda *_: pytest.fail("a process was started"))


def tables(out: Path) -> tuple[bytes, bytes]:
    return (out / "table.json").read_bytes(), (out / "table.md").read_bytes()


def folders(out: Path) -> list[Path]:
    return [out / "runs" / recipe / f"seed-{seed}" for recipe in RECIPES for seed in (0, 1)]


def steps_of(out: Path) -> list[int]:
    """The last steps of the runs that have any, as checkpoints have them."""
    runs = [RunFolder(folder) for folder in folders(out)]
    return [run.checkpoint("last").step for run in runs if run.steps()]


def weights(out: Path) -> list[dict[str, bytes]]:
    return [saved_weights(folder) for folder in folders(out)]


def signalled(out: Path, folder: Path, number: signal.Signals, *, step: int) -> int:
    """Return how the command ends on a signal, sent when its two processes are at a step."""

    def held(run: str, command: Sequence[str]) -> int:
        """A job whose training waits at the step for a signal."""
        os.open(folder / "lives", os.O_WRONLY)
        follow = Trainer.after_step

        def after_step(trainer: Trainer, finite: bool) -> bool:
            if trainer.place.step == step:
                (folder / f"held-{os.getpid()}").touch()
                wait_until(lambda: trainer.interrupts.signal is not None)
            return follow(trainer, finite)

        Trainer.after_step = after_step  # type: ignore[method-assign]
        return child_of_jobs.main(run, command)

    def command() -> None:
        ForkedProcess.main = staticmethod(held)
        os._exit(main([*STUDY, str(out)]))

    folder.mkdir()
    os.mkfifo(folder / "lives")  # open in the processes of the command: at its end all have ended
    lives = os.open(folder / "lives", os.O_RDONLY | os.O_NONBLOCK)
    child = fork(command)
    wait_for(lambda: len(list(folder.glob("held-*"))) == 2, child)
    os.kill(child, number)
    status = end_of(child)
    assert select.select([lives], [], [], TIME_LIMIT)[0], "processes of the command hang"
    os.close(lives)
    return status


def test_a_study_killed_and_interrupted_comes_to_the_same_table(
    whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    killed = signalled(out, tmp_path / "first", signal.SIGKILL, step=5)
    assert killed == -signal.SIGKILL
    assert steps_of(out) == [5, 5]
    interrupted = signalled(out, tmp_path / "second", signal.SIGINT, step=11)
    assert interrupted == 128 + signal.SIGINT
    assert steps_of(out) == [11, 11]
    assert not (out / "table.json").exists()
    last = fork(lambda: os._exit(main([*STUDY, str(out)])))
    assert end_of(last) == 0
    assert tables(out) == tables(whole)
    assert weights(out) == weights(whole)


def test_a_run_that_fails_takes_no_other_along(
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    damaged = out / "runs" / RECIPES[1] / "seed-1"
    (damaged / "config.json").write_text("{")
    started = []

    class Noted(jobs._Process):
        def __init__(self, job: jobs.Job, *rest: Any) -> None:
            started.append(job.run)
            super().__init__(job, *rest)

    monkeypatch.setattr(jobs, "_Process", Noted)
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "subprocess", subprocess)  # a process of Python, as users have it
        assert main([*STUDY, str(out)]) == 1
    assert started == [damaged]
    said = capsys.readouterr().out
    assert f"failed: {RECIPES[1]}/seed-1, exit status 2, log {out / 'logs'}" in said
    assert f"config.json of {damaged} is damaged" in said
    table = json.loads((out / "table.json").read_bytes())
    assert table["rows"][1]["seeds"][1]["failed"]
    assert table["rows"][1]["means"]["skl"]["known"] == 1
    reasons = {entry.get("reason") for entry in table["pairs"][0]["differences"].values()}
    assert reasons == {"not known of seed 1", None}  # of the claims, and of what has no verdict
    shutil.rmtree(damaged)
    assert main([*STUDY, str(out)]) == 0
    assert tables(out) == tables(whole)


def test_numbers_of_another_measurement_are_measured_again(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    run = out / "runs" / RECIPES[0] / "seed-0"
    assert cli.main(["evaluate", str(run), "--metrics", "skl", "--latent-samples", "30"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "_Process", lambda *_: pytest.fail("started"))
        with pytest.raises(pytest.fail.Exception, match="started"):
            main([*STUDY, str(out)])
    study = json.loads((out / "study.json").read_bytes())
    names = ("regularizers", "overrides", "groups")
    asked = Study(**{**study, **{name: tuple(study[name]) for name in names}})
    assert table_of(asked, out)["rows"][0]["means"]["skl"]["known"] == 1
    assert main([*STUDY, str(out)]) == 0
    assert tables(out) == tables(whole)


def test_a_run_of_another_configuration_is_refused_by_name(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    run = RunFolder(out / "runs" / RECIPES[1] / "seed-1")
    # As 'dpvae train --resume' leaves it for a run that has all its steps.
    run.reconfigure({**run.config, "learning_rate": 0.5})
    assert main([*STUDY, str(out)]) == 2
    said = capsys.readouterr().err
    assert f"{run.path} would change --learning-rate from 0.5 to 0.001; move that" in said


def test_two_commands_do_not_share_a_folder(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with alone(whole):
        assert main([*STUDY, str(whole)]) == 2
    assert "one command at a time" in capsys.readouterr().err


@pytest.mark.usefixtures("no_process")
def test_a_study_continues_as_it_was_requested(whole: Path) -> None:
    command = ["table1", "--data", "two-moons", "--regularizers", "beta-vae-b"]
    before = tables(whole)
    assert main([*command, "--out", str(whole)]) == 0
    assert tables(whole) == before


@pytest.mark.parametrize("content", ["{", "[1, 2]", '{"a": [1]}', '{"a": {"train": "long"}}'])
def test_a_damaged_file_of_times_counts_as_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "times.json").write_text(content)
    assert jobs.seconds_of(tmp_path) == {}


def test_the_reason_of_a_failure_is_of_its_last_attempt(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("---- a\nwhat went wrong before\n---- a\n")
    assert jobs._reason(log, -signal.SIGKILL) == "killed by SIGKILL"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["table2"], "python -m papers.dpvae: error: the target must be one of table1, figures"),
        (["table1", "--data", "foo"], "papers.dpvae table1: error: --data must be one of celeba"),
        (["table1", "--sedes", "2"], "did you mean --seeds?"),
    ],
)
def test_a_wrong_command_line_is_refused(
    typed: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(typed) == 2
    assert message in capsys.readouterr().err


def test_help_names_the_targets() -> None:
    command = [sys.executable, "-m", "papers.dpvae"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "papers.dpvae figures" in said


@pytest.mark.usefixtures("no_process")
def test_a_finished_study_starts_no_process(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tables(whole)
    assert main([*STUDY, str(whole)]) == 0
    assert tables(whole) == before
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 120


def test_runs_are_those_of_the_recipes_in_proportion(whole: Path) -> None:
    config = RunFolder(whole / "runs" / RECIPES[1] / "seed-1").config
    assert config["recipe"] == RECIPES[1]
    assert (config["seed"], config["steps"], config["backend"]) == (1, 20, "eager")
    assert config["objective"]["schedule"]["capacity"]["steps"] == 20
    assert config["prior"]["name"] == "coupling"


def test_the_table_is_what_the_runs_have_measured(whole: Path) -> None:
    table = json.loads((whole / "table.json").read_bytes())
    assert str(whole) not in json.dumps(table) + (whole / "table.md").read_text()
    values = []
    for recipe, row in zip(RECIPES, table["rows"], strict=True):
        for seed, one in enumerate(row["seeds"]):
            kept = RunFolder(whole / "runs" / recipe / f"seed-{seed}").read("evaluation.json")
            assert one["values"]["skl"] == kept["metrics"]["skl"]["value"]
            assert one["values"]["fid_low"] == kept["metrics"]["distance_low_posterior"]["value"]
            values.append(one["values"]["skl"])
    difference = table["pairs"][0]["differences"]["skl"]
    assert difference["seeds"] == [values[2] - values[0], values[3] - values[1]]


@pytest.mark.usefixtures("no_process")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "31"], "would change steps from 20 to 31; give the same options"),
        (["--seeds", "1"], "would change seeds from 2 to 1"),
        (["--override", "batch_size=50"], "would change overrides from"),
        (["--override", "seed=3"], "got 'seed=3'; the study compares"),
        (["--override=--prior.blocks=2"], "the same in all recipes, got '--prior.blocks=2'"),
        (["--override", "objective=elbo"], "the same in all recipes, got 'objective=elbo'"),
        (["--override", "evaluate-evry=3"], "there is no option --evaluate-evry"),
        (["--budget", "day"], "budget must be one of"),
        (["--regularizers", "vae,vae"], "each named once"),
        (["--data", "celeba", "--root", "nowhere"], "nowhere"),
        (["--data", "svhn", "--variant", "authors-code"], "data"),
    ],
)
def test_another_request_is_refused(
    arguments: list[str],
    message: str,
    whole: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = (whole / "study.json").read_bytes()
    assert main([*STUDY, str(whole), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert (whole / "study.json").read_bytes() == before


def test_a_study_may_have_more_seeds(whole: Path, tmp_path: Path) -> None:
    asked = json.loads((whole / "study.json").read_bytes())
    more = {**asked, "seeds": 3}
    for content in (asked, more):
        remember(content, tmp_path)
    assert json.loads((tmp_path / "study.json").read_bytes()) == more


def test_a_table_without_any_result_says_so(tmp_path: Path) -> None:
    study = Study(
        data="mnist",
        variant="paper",
        regularizers=tuple(REGULARIZERS),
        steps=5,
        seeds=1,
        overrides=(),
        evaluation={},
        features="domain",
        groups=("skl",),
    )
    table = table_of(study, tmp_path)
    assert [claim["undecided"] for claim in table["claims"]] == [6] * 5
    assert {claim["mean"]["reason"] for claim in table["claims"]} == {"not known of seed 0"}
    assert table["rows"][0]["model"] == "VAE"
    document = as_markdown(table, "python -m papers.dpvae table1")
    assert "| VAE | - (0/1) | 137.4 | - (0/1) | 165 | - (0/1) | - (0/1) | 1.26 |" in document
    assert "another scale" in document


def test_recipes_train_on_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = tmp_path / "points.npy"
    np.save(points, np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32))
    asked: list[jobs.Job] = []
    monkeypatch.setattr(command_table1, "run_jobs", lambda found, **_: asked.extend(found) or [])
    out = tmp_path / "out"
    assert main([*STUDY, str(out), "--source", str(points)]) == 0
    assert all(one.train[-2:] == ("--data", str(points)) for one in asked)
    document = (out / "table.md").read_text()
    assert f"# Table 1 on {points}" in document
    assert f"--data two-moons --variant paper --budget paper --source {points}" in document


def test_the_paper_has_no_numbers_of_other_data(tmp_path: Path) -> None:
    study = Study(
        data="mnist",
        variant="paper",
        regularizers=("vae",),
        steps=5,
        seeds=1,
        overrides=(),
        evaluation={},
        features="domain",
        groups=("skl",),
        source="fashion-mnist",
    )
    document = as_markdown(table_of(study, tmp_path), "python -m papers.dpvae table1")
    assert "another scale" not in document
    assert "137.4" not in document


def test_a_claim_is_also_tested_on_the_mean_over_the_pairs() -> None:
    claim = claims_of("fid")[0]
    differences = ([-1.0, 2.0, -3.0], [-2.0, -6.0, 0.0])  # means -1.5, -2 and -1.5
    pairs = [
        {"differences": {claim.name: {"seeds": ones, "verdict": "undecided", "reason": ""}}}
        for ones in differences
    ]
    found = over_all(claim, pairs)
    assert (found["undecided"], found["mean"]["verdict"]) == (2, "holds")
    # The standard error is 1 / 6, and Student's t of two degrees of freedom is 4.302653.
    assert found["mean"]["mean"] == pytest.approx(-5 / 3)
    assert found["mean"]["high"] == pytest.approx(-5 / 3 + 4.302653 / 6, abs=1e-5)
    assert "over the pairs -1.667 [-2.384, -0.9496], holds" in verdict_line(found)
    pairs[0]["differences"][claim.name]["seeds"] = [-1.0, None, -3.0]
    found = over_all(claim, pairs)
    assert (found["mean"]["verdict"], found["mean"]["reason"]) == (
        "undecided",
        "not known of seed 1",
    )
