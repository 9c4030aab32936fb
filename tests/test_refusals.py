"""What a newcomer types wrong is answered with a rule, what was got and a remedy, in one line."""

import os
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from pyro_dpvae.cli import main

SHORT = ["--steps", "2", "--backend", "eager"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, and with what is none."""
    here = tmp_path_factory.mktemp("typed")
    (here / "empty").mkdir()
    (here / "text.txt").write_text("some text")
    (here / "notes.npy").write_text("some text")
    (here / "broken.yaml").write_text("steps: [1")
    np.save(here / "number.npy", np.array(3.0))
    assert main(["train", "--data", "two-moons", *SHORT, "--out", str(here / "run")]) == 0
    return here


REFUSED = {
    "trian": "the command must be one of .* got 'trian'",
    "train": "data is missing; give the name of a data set, a file or a folder",
    "train two-moons": "unexpected argument 'two-moons'; options start with --",
    "train --data": "--data must be followed by a value",
    "train --data ''": "data must not be empty, got ''; give a name, a file or a folder",
    "train --data mnsit": "data must be one of .* got 'mnsit'",
    "train --data missing.npz": "missing.npz does not exist",
    "train --data empty": "has no images: files must end in",
    "train --data text.txt": "a data file must be an idx file or end in one of .*; got .*text.txt",
    "train --data notes.npy": "notes.npy cannot be read as a .npy or .npz file of numbers",
    "train --data number.npy": "one row per item, got a single number .*; store an array",
    "train --data two-moons --out run": "a run; continue it with dpvae train --resume run, choose",
    "train --data two-moons --out ''": "--out must not be empty",
    "train --data two-moons --out text.txt": "text.txt is a file; choose another folder",
    "train --data two-moons --latentdim 3": r"did you mean --latent-dim\?",
    "train --data two-moons --steps 1e3": "--steps must be a whole number or null; got 1e3;",
    "train --data two-moons --seed -1": "seed must be from 0 to 4294967295, got -1",
    "train --data two-moons --device gpu": "device must be auto, cpu, .* got 'gpu': .*; use auto",
    "train --data two-moons --prior couplings": "prior must be one of .* got 'couplings'",
    "train --config missing.yaml": "--config must name a file that exists; got .*missing.yaml",
    "train --config empty": "--config must name a file that exists; got .*empty",
    "train --config broken.yaml": "a configuration must be YAML or JSON, got broken.yaml",
    "train --recipe mnist-beta-vae": r"did you mean mnist-beta-vae-h",
    "train --resume missing": "missing holds no run yet; to start one there, give --data",
    "train --resume ''": "--resume must not be empty",
    "sample": "RUN must be given",
    "sample missing": "missing is not a run folder.*; pass a folder that 'dpvae",
    "sample empty": "empty is not a run folder.*; pass a folder that 'dpvae",
    "sample run run": "unexpected argument 'run'",
    "sample run --checkpoint newest": "checkpoint must be last, best or a step; got 'newest'",
    "sample run --device gpu": "device must be auto",
    "sample run --seed -1": "seed must be from 0",
    "sample run --out empty": "--out must name a picture, .* got 'empty'; give empty/samples.png",
    "sample run --out moons": "--out must name a picture, .* got 'moons'; give moons.png",
    "sample run --out a.foo": "--out must name a picture, .* got 'a.foo'; give a.foo.png",
    "sample run --out text.txt/a.png": "text.txt is a file; choose another folder",
    "evaluate run --metrics nil": "metrics must be one of .* got 'nil'",
    "evaluate run --seed -1": "seed must be from 0",
    "compare run": "a comparison needs at least two runs, got 1",
    "compare run empty --evaluate": "empty is not a run folder",
    "plot run --out text.txt": "text.txt is a file; choose another folder",
    "report run --out empty": "--out must name the file .* empty is a folder; give empty/report",
    "explore missing": "missing is not a run folder",
    "recipes nothing": "recipe must be one of those that 'dpvae recipes' lists, got 'nothing'",
    "demo --steps 0": "steps must be at least 1, got 0",
    "demo --seed -1": "seed must be from 0",
}


@pytest.mark.parametrize("typed", REFUSED)
def test_what_is_typed_wrong_is_refused_in_one_line(
    typed: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    assert main(shlex.split(typed)) == 2
    *others, line = capsys.readouterr().err.splitlines()
    assert all(other.startswith(("device: cpu", "two-moons: ", "data: ")) for other in others)
    command = typed.split()[0]
    assert line.startswith("dpvae: error: " if command == "trian" else f"dpvae {command}: error: ")
    assert re.search(REFUSED[typed], line), line
    assert sorted(folder.iterdir()) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="everything is writable for root")
def test_a_folder_without_permission_is_refused_by_name(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o500)
    for command in (["train", "--data", "two-moons", *SHORT], ["plot", str(folder / "run")]):
        assert main([*command, "--out", str(tmp_path / "new")]) == 2
        assert "must be writable, and the system refuses: permission" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["sample", "plot"])
def test_a_disk_that_refuses_is_said_with_the_file(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pyro_dpvae._files._write_synced", refuse)
    assert main([command, str(folder / "run")]) == 2
    told = capsys.readouterr().err
    assert re.search(r"\.png must be writable, and the system refuses: permission denied; ", told)


def test_a_package_that_is_missing_is_named_with_its_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.chdir(folder)
    assert main(["train", "--data", "two-moons", "--tensorboard", "--out", "boards"]) == 2
    told = capsys.readouterr().err
    assert re.search(r'train: error: .*pip install "pyro-dpvae\[tensorboard\]"', told)
    assert not (folder / "boards").exists()
