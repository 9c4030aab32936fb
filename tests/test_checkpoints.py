"""Checkpoints on disk: whole or not there, refused if damaged, and readable whatever happens."""

import errno
import hashlib
import itertools
import os
import random
import re
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pyro_dpvae.cli import main
from pyro_dpvae.errors import CheckpointError
from pyro_dpvae.evaluation.kept import keep, kept_per_datum
from pyro_dpvae.runs import RunFolder, pack, unpack
from pyro_dpvae.training import History
from tests.children import end_of, fork


def saved(folder: Path, *steps: int, config: dict[str, Any] | None = None) -> RunFolder:
    run = RunFolder.create(folder, config or {})
    for step in steps:
        save(run, step)
    return run


def save(run: RunFolder, step: int, *, best: int | None = None) -> None:
    layer = nn.Linear(3, 3)
    nn.init.constant_(layer.weight, step)
    training = {"optimizer": {0: (torch.full((5,), float(step)), "adam")}}
    run.save({"layer": layer}, {"step": step, "best": best}, training=training)


def check(run: RunFolder, step: int) -> None:
    """Hold the last checkpoint to be that of a step, in all its parts."""
    checkpoint, layer = run.checkpoint("last"), nn.Linear(3, 3)
    checkpoint.load({"layer": layer})
    assert checkpoint.step == step
    assert bool((layer.weight == step).all())
    (moments, name) = checkpoint.training()["optimizer"][0]
    assert (moments.tolist(), name) == ([float(step)] * 5, "adam")


_KEYS = st.text(max_size=3) | st.integers(-3, 3) | st.booleans() | st.none()
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.integers(0, 3).map(torch.arange)
)
_STATES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(_KEYS, inner),
    max_leaves=12,
)


def alike(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        same = type(one) is type(other) and len(one) == len(other)
        return same and all(map(alike, one, other))
    return type(one) is type(other) and bool(one == other)


@given(state=_STATES)
def test_nested_states_survive_packing(state: Any) -> None:
    import json

    from safetensors.torch import load
    from safetensors.torch import save as to_bytes

    tensors, rest = pack(state)
    text = json.dumps(rest, allow_nan=False)
    assert alike(unpack(load(to_bytes(tensors)), json.loads(text)), state)


def test_objects_are_refused_by_their_place() -> None:
    with pytest.raises(TypeError, match=r"got Path at .*a\.1|got PosixPath at a\.1"):
        pack({"a": [1, Path("x")]})


def test_the_newest_two_and_the_best_are_kept(tmp_path: Path) -> None:
    run = saved(tmp_path / "run")
    for step, best in ((1, None), (2, 2), (3, 2), (4, 2), (5, 2), (6, 2)):
        save(run, step, best=best)
    assert run.steps() == [2, 5, 6]
    assert run.checkpoint("best").step == 2
    assert run.checkpoint(5).step == 5
    check(run, 6)
    for which, message in ((3, "no checkpoint 3"), ("worst", "'last', 'best' or a step of 2, 5")):
        with pytest.raises(FileNotFoundError, match=message):
            run.checkpoint(which)


def test_a_folder_in_place_of_an_old_checkpoint_is_left_alone(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", 1, 2)
    path = run.checkpoint(1).path
    path.unlink()
    path.mkdir()
    save(run, 3)
    assert path.is_dir()
    assert run.checkpoint("last").step == 3


def test_a_flipped_bit_is_refused_by_name_and_the_previous_one_offered(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", 1000, 2000)
    path = run.checkpoint("last").path
    content = path.read_bytes()
    generator = random.Random(0)
    for at in range(len(content)):  # the header, its length and all tensors
        bit = 1 << generator.randrange(8)
        path.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
        with pytest.raises(CheckpointError, match=f"{path} is damaged: its bytes") as e:
            run.checkpoint("last")
        command = f"dpvae train --resume {run.path} --checkpoint 1000"
        assert str(e.value).endswith(f"resume with: {command}")
    for damaged in (content[:-1], content + b"x", content[:20], b""):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="is damaged"):
            run.checkpoint("last")
    assert run.checkpoint(1000).step == 1000
    run.checkpoint(1000).path.unlink()
    with pytest.raises(CheckpointError, match="no other checkpoint is undamaged: train again"):
        run.checkpoint("last")


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", 1)
    path = run.checkpoint("last").path
    sealed = path.read_bytes().replace(b'"format":"2"', b'"format":"9"')
    seal = re.search(rb'"sha256":"(.{64})"', sealed)
    assert seal is not None
    digest = hashlib.sha256(sealed.replace(seal[1], b"0" * 64)).hexdigest()
    path.write_bytes(sealed.replace(seal[1], digest.encode()))
    with pytest.raises(CheckpointError, match="has format 9, but this version reads format 2"):
        run.checkpoint("last")


def test_a_checkpoint_replaced_after_it_was_opened_is_not_mixed_with_the_new_one(
    tmp_path: Path,
) -> None:
    run = saved(tmp_path / "run", 1)
    before = run.checkpoint("last")
    run.save({"layer": nn.Linear(3, 3)}, {"step": 1})
    with pytest.raises(CheckpointError, match="replaced since it was opened"):
        before.load({"layer": nn.Linear(3, 3)})


def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, calls = saved(tmp_path / "run"), []
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda _file: calls.append("fsync"))
    monkeypatch.setattr(os, "replace", lambda *a: calls.append("replace") or replace(*a))
    save(run, 1)
    assert calls == ["fsync", "replace", "fsync"]  # of the file, and of the folder


def test_a_checkpoint_of_another_run_or_another_step_is_refused(tmp_path: Path) -> None:
    run, other = (
        saved(tmp_path / str(seed), 1, 2, config={"seed": seed, "steps": 5}) for seed in (0, 1)
    )
    last = run.checkpoint("last").path
    shutil.copy(other.checkpoint("last").path, last)
    with pytest.raises(ValueError, match=f"{last} is of run {other.id}, not of {run.id}"):
        run.checkpoint("last")
    last.rename(last.with_stem("000000003"))
    shutil.copy(run.checkpoint(1).path, last)
    with pytest.raises(ValueError, match=r"000000002.safetensors is of step 1"):
        run.checkpoint(2)


def test_more_steps_are_the_same_run_and_another_seed_is_not(tmp_path: Path) -> None:
    config = {"seed": 0, "steps": 5, "prior": {"name": "standard"}}
    run = saved(tmp_path / "run", 1, config=config)
    run.reconfigure({**config, "steps": 9})
    assert run.config["steps"] == 9
    check(run, 1)
    run.reconfigure({**config, "added": None})  # as a later version does
    check(run, 1)
    with pytest.raises(ValueError, match="would change --seed from 0 to 1; only "):
        run.reconfigure({**config, "seed": 1})


@pytest.mark.parametrize("step", [3, 4])
def test_a_kill_at_any_point_of_a_write_leaves_whole_checkpoints(
    step: int, tmp_path: Path
) -> None:
    calls = ("fsync", "replace", "mkdir", "unlink")

    def write(run: RunFolder, point: int) -> None:
        count = itertools.count()

        def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*arguments: Any, **options: Any) -> Any:
                if next(count) == point:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments, **options)

            return wrapped

        for name in calls:
            setattr(os, name, deadly(getattr(os, name)))
        save(run, step)

    found = []
    for point in range(40):
        run = saved(tmp_path / str(point), 1, 2, 3)  # of which the first is removed after a write
        status = end_of(fork(lambda run=run, point=point: write(run, point)))
        assert status in (0, -signal.SIGKILL)
        found.append(run.steps())
        check(run, run.steps()[-1])
        assert run.checkpoint(run.steps()[-2]).step == run.steps()[-2]
        run.tidy()
        assert not list(run.path.rglob("*.tmp"))
        save(run, 5)
        check(run, 5)
        if status == 0:
            break
    assert status == 0
    added = {(2, 3), (2, 3, 4), (3, 4)}
    assert {tuple(steps) for steps in found} == (added if step == 4 else {(2, 3)})


def test_what_killed_writes_have_left_is_removed(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", 1)
    dead, alive = fork(lambda: None), os.getpid()
    assert end_of(dead) == 0
    (run.path / "nonfinite").mkdir()
    left = [run.path / f"evaluation.json.{dead}.tmp", run.path / f"nonfinite/s.json.{dead}.tmp"]
    written = run.path / f"evaluation.json.{alive}.tmp"
    for path in (*left, written):
        path.touch()
    run.tidy()
    assert [path.exists() for path in (*left, written)] == [False, False, True]


def test_a_full_disk_is_one_clear_error_and_nothing_is_damaged(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", 1)

    def write() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))  # a write past it fails
        with pytest.raises(
            OSError, match=r"2.safetensors must be writable, .*: file too large; earlier"
        ):
            save(run, 2)

    assert end_of(fork(write)) == 0
    check(run, 1)
    assert run.steps() == [1]
    assert not list(run.path.rglob("*.tmp"))


def refuse(*_arguments: object, **_options: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_a_read_only_folder_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = saved(tmp_path / "run", 1)
    monkeypatch.setattr(os, "mkdir", refuse)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(OSError, match=r"000000002.* must be writable, .*: read-only file sy"):
            save(run, 2)
    check(run, 1)
    arguments = ["--data", "two-moons", "--steps", "3", "--out", str(tmp_path / "other")]
    assert main(["train", *arguments]) == 2
    assert "other must be writable, and the system refuses: read-only" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused_by_name(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", 1)
    folder = run.path / "checkpoints"
    folder.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match=r"000000002.safetensors must be writable"):
            save(run, 2)
        check(run, 1)
    finally:
        folder.chmod(0o700)


def test_half_a_record_is_left_out(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", 1)
    run.log({"step": 1})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    assert list(run.records()) == [{"step": 1}]


def test_values_per_datum_of_another_checkpoint_are_dropped(tmp_path: Path) -> None:
    """Killed after the tensors of an evaluation were written, and before its metrics were."""
    run = saved(tmp_path / "run", 1)
    first, second = {"run": "first", "data": "x"}, {"run": "second", "data": "x"}

    def measured(basis: dict[str, str], value: float) -> dict[str, Any]:
        of_each = torch.full((2,), value)
        return keep(run, basis, "elbo", numbers={"seed": 0}, metrics={}, per_datum=of_each)

    content = measured(first, 0.0)
    assert kept_per_datum(run, content)["elbo"].tolist() == [0, 0]
    before = (run.path / "evaluation.json").read_bytes()
    measured(second, 1.0)
    (run.path / "evaluation.json").write_bytes(before)
    assert kept_per_datum(run, run.read("evaluation.json")) == {}


def test_numbers_that_are_not_finite_are_json(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", 1)
    run.log({"step": 1, "held_out": {"elbo": float("-inf")}})
    assert list(run.records()) == [{"step": 1, "held_out": {"elbo": "-inf"}}]
    assert History(list(run.records())).held_out == {"elbo": float("-inf")}
