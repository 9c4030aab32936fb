"""``dpvae reproduce table1``: the same table, whatever happens on the way."""

import json
import os
import select
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from pyro_dpvae.cli import jobs, main
from pyro_dpvae.recipes import REGULARIZERS
from pyro_dpvae.reproduction import Study, alone, as_markdown, remember, table_of
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.training.trainer import Trainer
from tests.children import end_of, fork, wait_for
from tests.waiting import TIME_LIMIT, wait_until

STUDY = ["reproduce", "table1", "--data", "two-moons", "--regularizers", "beta-vae-b"]
STUDY += ["--steps", "20", "--seeds", "2", "--override", "backend=eager", "--jobs", "2"]
STUDY += ["--nll-samples", "20", "--nll-data", "8", "--latent-samples", "40", "--out"]
RECIPES = ("two-moons-beta-vae-b", "two-moons-beta-vae-b-dp")


@pytest.fixture(scope="module", autouse=True)
def forked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Workers as forks of this process, which has imported all that they need."""
    first = ["--override", "backend=eager", "--steps", "1", "--out"]
    assert (
        main(["train", "--recipe", "two-moons-vae-dp", *first, str(tmp_path_factory.mktemp("a"))])
        == 0
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "_START", "fork")
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that nothing has interrupted."""
    out = tmp_path_factory.mktemp("whole")
    child = fork(lambda: os._exit(main([*STUDY, str(out)])))
    assert end_of(child) == 0
    return out


def tables(out: Path) -> tuple[bytes, bytes]:
    return (out / "table.json").read_bytes(), (out / "table.md").read_bytes()


def folders(out: Path) -> list[Path]:
    return [out / "runs" / recipe / f"seed-{seed}" for recipe in RECIPES for seed in (0, 1)]


def steps_of(out: Path) -> list[int]:
    """The last steps of the runs that have any, as checkpoints have them."""
    runs = [RunFolder(folder) for folder in folders(out)]
    return [run.checkpoint("last").step for run in runs if run.steps()]


def weights(out: Path) -> list[bytes]:
    ends = [RunFolder(folder).checkpoint("last").path for folder in folders(out)]
    return [(end / "weights.safetensors").read_bytes() for end in ends]


def signalled(out: Path, signs: Path, number: signal.Signals, *, step: int) -> int:
    """Return how the command ends on a signal, which comes when its runs have reached a step.

    The two runs that work at once put a sign into a folder when they are there, and go on when
    they get a signal themselves, so that it does not matter how fast they are.
    """

    def command() -> None:
        follow = Trainer.after_step

        def held(trainer: Trainer, finite: bool) -> bool:
            if trainer.place.step == step:
                (signs / str(os.getpid())).touch()
                wait_until(lambda: trainer._interrupts.signal is not None)
            return follow(trainer, finite)

        Trainer.after_step = held  # type: ignore[method-assign]
        os._exit(main([*STUDY, str(out)]))

    signs.mkdir()
    lives, held_open = os.pipe()  # by the command and its forks; at its end all have ended
    child = fork(command)
    os.close(held_open)
    wait_for(lambda: len(list(signs.iterdir())) == 2, child)
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
    start = jobs._started
    monkeypatch.setattr(jobs, "_started", lambda job, log: started.append(job) or start(job, log))
    assert main([*STUDY, str(out)]) == 1
    assert [job.run for job in started] == [damaged]
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
    assert main(["evaluate", str(run), "--metrics", "skl", "--latent-samples", "30"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "_started", lambda *_: pytest.fail("started"))
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
    assert f"{run.path} would change --learning-rate from 0.5 to 0.001; remove" in said


def test_two_commands_do_not_share_a_folder(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with alone(whole):
        assert main([*STUDY, str(whole)]) == 2
    assert "one command at a time" in capsys.readouterr().err


def test_a_study_goes_on_as_it_was_asked_for(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_started", lambda *_: pytest.fail("a process was started"))
    command = ["reproduce", "table1", "--data", "two-moons", "--regularizers", "beta-vae-b"]
    before = tables(whole)
    assert main([*command, "--out", str(whole)]) == 0
    assert tables(whole) == before


def test_a_damaged_note_of_a_job_does_not_break_the_end(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "job.json").write_text('{"seconds": [1, 2]}')
    assert jobs.seconds_of(jobs.Job(name="a", run=run, steps=1, train=())) == {}


def test_the_reason_of_a_failure_is_of_its_last_attempt(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("---- a\nwhat went wrong before\n---- a\n")
    assert jobs._reason(log, -signal.SIGKILL) == "killed by SIGKILL"


def test_what_is_finished_starts_no_process(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jobs, "_started", lambda *_: pytest.fail("a process was started"))
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "31"], "would change steps from 20 to 31; ask for the same, name"),
        (["--seeds", "1"], "would change seeds from 2 to 1"),
        (["--override", "batch_size=50"], "would change overrides from"),
        (["--override", "seed=3"], "alike, got 'seed=3'; priors"),
        (["--override=--prior.blocks=2"], "alike, got '--prior.blocks=2'"),
        (["--override", "objective=elbo"], "alike, got 'objective=elbo'"),
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
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(jobs, "_started", lambda *_: pytest.fail("a process was started"))
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
    assert table["rows"][0]["model"] == "VAE"
    document = as_markdown(table, "dpvae reproduce table1")
    assert "| VAE | - (0/1) | 137.4 | - (0/1) | 165 | - (0/1) | - (0/1) | 1.26 |" in document
    assert "another scale" in document
