"""Run folders under attack: what users and machines do to them while commands work."""

import dataclasses
import json
import os
import pwd
import shlex
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, final

import numpy as np
import pyro
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from pyro_dpvae.cli import main
from pyro_dpvae.data import Batches
from pyro_dpvae.evaluation import GROUPS, EvaluationConfig, Subject, evaluate_run
from pyro_dpvae.evaluation.kept import kept_per_datum
from pyro_dpvae.recipes import build_system, open_run
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.training import AbstractCallback, History, TrainConfig, fit
from tests.children import end_of, fork
from tests.saved import last_file, saved_weights

TINY = ["--network=mlp", "--network.hidden=[4]", "--prior.blocks=2", "--prior.hidden=[4]"]
TINY += ["--latent-dim=2", "--batch-size=4", "--backend=eager", "--evaluate-every=2"]
CONFIG = {"prior": {"name": "coupling", "blocks": 4}, "seed": 0, "steps": 9}


def save(run: RunFolder, step: int) -> None:
    run.save({"layer": nn.Linear(3, 3)}, {"step": step})


def trained(folder: Path, *arguments: str, data: str = "data.npy") -> Path:
    if not (folder / data).exists():
        np.save(folder / data, np.random.default_rng(0).normal(size=(30, 3)))
    where = ["--data", str(folder / data), "--out", str(folder / "run")]
    assert main(["train", *TINY, *where, "--steps=6", *arguments]) == 0
    return folder / "run"


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that refuses its input; returns what it says."""
    capsys.readouterr()
    assert main(arguments) == 2
    return capsys.readouterr().err


def change(run: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((run / "config.json").read_text())
    edit(config)
    (run / "config.json").write_text(json.dumps(config))


def test_a_configuration_that_changes_meanwhile_leaves_the_run_one_run(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", CONFIG)
    with run.locked():
        save(run, 1)
        change(run.path, lambda config: config["prior"].update(blocks=5))
        with pytest.warns(UserWarning, match=r"prior\.blocks from 4 to 5.*restore_configuration"):
            save(run, 2)
        change(run.path, lambda config: config["prior"].update(blocks=4))
        save(run, 3)
    for step in run.steps():
        assert run.checkpoint(step).step == step


def test_a_folder_that_is_anothers_now_is_not_written_into(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", CONFIG)
    with run.locked():
        save(run, 1)
        run.path.rename(tmp_path / "moved")
        with pytest.raises(FileNotFoundError, match="moved, removed or replaced"):
            save(run, 2)
        assert not run.path.exists()
        other = RunFolder.create(run.path, {**CONFIG, "seed": 1})
        with pytest.raises(FileNotFoundError, match="moved, removed or replaced"):
            save(run, 2)
        assert other.steps() == []


def test_a_changed_configuration_is_named_and_restored_by_the_printed_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    run = trained(folder)
    before = (run / "config.json").read_text()
    files = {path: path.read_bytes() for path in (run / "checkpoints").rglob("*.*")}
    change(run, lambda config: config["prior"].update(blocks=3))
    said = refusal(capsys, "evaluate", str(run), "--metrics=elbo")
    assert "--prior.blocks from 2 to 3" in said
    assert "remove" not in said
    command = shlex.split(said.strip().rpartition("with: ")[2])
    subprocess.run([sys.executable, *command[1:]], check=True)
    assert (run / "config.json").read_text() == before
    assert main(["evaluate", str(run), "--metrics=elbo"]) == 0
    assert {path: path.read_bytes() for path in (run / "checkpoints").rglob("*.*")} == files


def deep(text: str) -> str:
    return '{"a":' * 100_000 + text + "}" * 100_000


def test_checkpoints_of_an_earlier_version_are_refused_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(tmp_path)
    checkpoints = run / "checkpoints"
    before_them = len(list(checkpoints.iterdir()))
    for path in list(checkpoints.iterdir()):
        path.unlink()
        path.with_suffix("").mkdir()
    before = (run / "metrics.jsonl").read_bytes()
    for command in (["evaluate", str(run)], ["train", "--resume", str(run)]):
        assert f"{checkpoints} has checkpoints of an earlier version" in refusal(capsys, *command)
    assert (run / "metrics.jsonl").read_bytes() == before
    assert len(list(checkpoints.iterdir())) == before_them


@pytest.mark.parametrize("file", ["config.json", "evaluation.json"])
def test_json_of_great_depth_is_refused_by_name(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(tmp_path)
    (run / file).write_text(deep("1"))
    said = refusal(capsys, "evaluate", str(run), "--metrics=elbo")
    assert file in said
    assert str(run) in said


@pytest.mark.parametrize(
    "place", ["config.json", "evaluation.json", "checkpoints/000000006.safetensors"]
)
def test_a_folder_where_a_file_should_be_is_refused_by_name(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(tmp_path)
    (run / place).unlink(missing_ok=True)
    (run / place).mkdir()
    said = refusal(capsys, "evaluate", str(run), "--metrics=elbo")
    assert place in said
    assert "Errno" not in said


@pytest.mark.parametrize("place", ["checkpoints", "checkpoints/000000006.safetensors"])
@pytest.mark.parametrize("command", ["evaluate", "train"])
def test_an_empty_file_in_place_of_checkpoints_is_refused_by_name(
    place: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(tmp_path)
    (run / place).rename(tmp_path / "aside")
    (run / place).write_text("")
    arguments = {"evaluate": [str(run), "--metrics=elbo"], "train": ["--resume", str(run)]}
    said = refusal(capsys, command, *arguments[command])
    assert str(run / place) in said or "has no checkpoint yet" in said
    assert "Errno" not in said


QUICK = EvaluationConfig(nll_samples=20, nll_data=3, latent_samples=40)


def measure(run: Path, *groups: str) -> dict[str, Any]:
    saved = open_run(run)
    return evaluate_run(Subject(saved, saved.load_data(), QUICK, progress=False), groups)


def test_evaluations_of_one_run_keep_each_others_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, skl = trained(tmp_path), GROUPS["skl"]

    def meanwhile(subject: Subject) -> Any:
        measure(run, "elbo", "leakage")
        return skl.measure(subject)

    monkeypatch.setitem(GROUPS, "skl", dataclasses.replace(skl, measure=meanwhile))
    assert "skl" in measure(run, "skl", "split")
    content = RunFolder.open(run).read("evaluation.json")
    assert set(content["groups"]) == {"elbo", "leakage", "skl", "split"}
    assert {"elbo", "skl", "leakage_-1", "rate"} <= set(content["metrics"])
    assert set(kept_per_datum(RunFolder.open(run), content)) == {"elbo"}


def test_processes_that_evaluate_one_run_lose_nothing(tmp_path: Path) -> None:
    run, groups = trained(tmp_path), ("elbo", "nll", "skl", "split", "distance")
    children = [fork(lambda name=name: measure(run, name)) for name in groups]  # type: ignore[misc]
    assert [end_of(child) for child in children] == [0] * len(groups)
    content = RunFolder.open(run).read("evaluation.json")
    assert set(content["groups"]) == set(groups)
    assert set(kept_per_datum(RunFolder.open(run), content)) == {"elbo", "nll"}


@pytest.mark.parametrize("command", ["evaluate --metrics=elbo", "plot", "encode", "reconstruct"])
def test_data_that_were_replaced_in_place_are_refused_unless_they_are_named(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(tmp_path)
    name, *options = command.split()
    np.save(tmp_path / "data.npy", np.random.default_rng(1).normal(size=(30, 3)))
    said = refusal(capsys, name, str(run), *options)
    assert f"{tmp_path / 'data.npy'} has other values now" in said
    assert not (run / "evaluation.json").exists()
    assert not (run / "plots").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main([name, str(run), *options, "--data", str(tmp_path / "data.npy")]) == 0
    assert "warning: the data" in capsys.readouterr().err


def test_a_page_says_that_data_were_replaced_and_draws_none_of_them(tmp_path: Path) -> None:
    run = trained(tmp_path)
    np.save(tmp_path / "data.npy", np.random.default_rng(1).normal(size=(30, 3)))
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "has other values now" in page
    assert "<img" not in page


class Fragile(Dataset[torch.Tensor]):
    """Data of which one kills its reader, or cannot be read, while a file is there."""

    def __init__(self, folder: Path, *, kills: bool) -> None:
        self.flag, self.kills = folder / "harm", kills

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 17 and self.flag.exists():
            if self.kills:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError("the file is truncated")
        return torch.randn(3, generator=torch.Generator().manual_seed(index))


@final
class Harm(AbstractCallback):
    """Does harm to the data once some steps are taken."""

    def __init__(self, data: Fragile) -> None:
        self.data = data

    def recorded(self, record: dict[str, Any]) -> None:
        if record["step"] == 8:
            self.data.flag.touch()


def fit_on(train: Fragile, folder: Path, *, test: Fragile, **options: Any) -> History:
    pyro.set_rng_seed(0)
    system = build_system(
        (3,),
        latent_dim=2,
        dataset_size=24,
        prior={"name": "standard"},
        likelihood={"name": "gaussian-learned"},
        network={"name": "mlp", "hidden": [4]},
        guide={"name": "amortized"},
        objective={"name": "elbo"},
    )
    run = RunFolder(folder)
    cut: dict[str, Any] = {"batch_size": 4, "preprocessing": "none", "workers": 2}
    return fit(
        system.model,
        system.guide,
        objective=system.objective,
        train=Batches(train, **cut),
        test=Batches(test, **cut, shuffle=False),
        config=TrainConfig(steps=24, evaluate_every=12, log_every=1, backend="eager"),
        run=run if run.exists else RunFolder.create(folder, CONFIG),
        progress=False,
        resume=run.exists,
        **options,
    )


@pytest.mark.parametrize("kills", [True, False])
def test_a_reader_that_ends_leaves_a_checkpoint_to_go_on_from(tmp_path: Path, kills: bool) -> None:
    data, sound = Fragile(tmp_path, kills=kills), Fragile(tmp_path / "none", kills=False)
    fit_on(data, tmp_path / "whole", test=sound)
    kind, text = (
        (OSError, "a worker process that reads data has ended")
        if kills
        else (ValueError, "file is truncated")
    )
    with pytest.raises(kind, match=text) as raised:
        fit_on(data, tmp_path / "run", test=sound, callbacks=[Harm(data)])
    run = RunFolder(tmp_path / "run")
    last = run.checkpoint("last")
    assert 8 <= last.step < 24
    assert last.step == run.last_step
    assert any(f"of step {last.step} was written" in note for note in raised.value.__notes__)
    data.flag.unlink()
    fit_on(data, tmp_path / "run", test=sound)
    assert saved_weights(tmp_path / "run") == saved_weights(tmp_path / "whole")


def test_held_out_data_that_cannot_be_read_leave_a_checkpoint(tmp_path: Path) -> None:
    data, sound = Fragile(tmp_path, kills=True), Fragile(tmp_path / "none", kills=False)
    fit_on(sound, tmp_path / "whole", test=data)
    with pytest.raises(OSError, match="a worker process that reads data has ended"):
        fit_on(sound, tmp_path / "run", test=data, callbacks=[Harm(data)])
    assert RunFolder(tmp_path / "run").checkpoint("last").step == 12
    data.flag.unlink()
    history = fit_on(sound, tmp_path / "run", test=data)
    assert [record["step"] for record in history.records if "held_out" in record] == [12, 24]
    assert saved_weights(tmp_path / "run") == saved_weights(tmp_path / "whole")


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """No HOME, and a user id that the system's list does not have, as in a container."""

    def unknown(_user: int) -> None:
        raise KeyError("getpwuid(): uid not found")

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("command", ["evaluate --metrics=elbo", "plot", "report"])
def test_a_user_without_a_home_is_told_where_caches_are(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(tmp_path)
    name, *options = command.split()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main([name, str(run), *options]) == 0
    assert f"caches are kept in {tempfile.gettempdir()}" in capsys.readouterr().err


def test_a_pipe_that_is_closed_is_no_failure_of_a_command(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.random.default_rng(0).normal(size=(30, 3)))
    where = ["--data", str(tmp_path / "data.npy"), "--out", str(tmp_path / "run")]
    reading, writing = os.pipe()
    os.close(reading)
    program = [sys.executable, "-m", "pyro_dpvae", "data", where[1]]
    done = subprocess.run(program, stdout=writing, stderr=writing, cwd=tmp_path)
    assert done.returncode == 0

    def train() -> None:
        for end in (1, 2):
            os.dup2(writing, end)
        sys.stdout, sys.stderr = (open(end, "w", closefd=False) for end in (1, 2))  # noqa: SIM115
        assert main(["train", *TINY, *where, "--steps=6"]) == 0
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # as an interpreter does at its end

    assert end_of(fork(train)) == 0
    os.close(writing)
    assert RunFolder.open(tmp_path / "run").steps()[-1] == 6


def test_printed_commands_are_quoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "it's mine; $HOME"
    folder.mkdir()
    run = trained(folder)
    said = [capsys.readouterr().out.strip().rpartition("samples: ")[2]]
    said.append(refusal(capsys, "compare", str(run), str(run)).rpartition("run: ")[2])
    last_file(run).write_bytes(b"")
    said.append(refusal(capsys, "plot", str(run)).rpartition("with: ")[2])
    for command in said:
        assert shlex.split(command)[0] == "dpvae"
        assert str(run) in shlex.split(command)


def test_an_interrupted_evaluation_says_what_it_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_subject: Subject) -> NoReturn:
        raise KeyboardInterrupt

    run, skl = trained(tmp_path), GROUPS["skl"]
    monkeypatch.setitem(GROUPS, "skl", dataclasses.replace(skl, measure=interrupted))
    assert main(["evaluate", str(run), "--metrics=elbo,split,skl"]) == 130
    said = capsys.readouterr().err
    assert f"stored in {run}: elbo, split; the same command continues with skl" in said
    assert {"elbo", "split"} == set(RunFolder.open(run).read("evaluation.json")["groups"])
