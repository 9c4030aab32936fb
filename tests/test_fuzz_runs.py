"""Run folders with anything in them: commands do their work, or say what is wrong and stop."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing import check_ended, damaged, listing, outcome, scratch

TINY = ["--network=mlp", "--network.hidden=[4]", "--prior.blocks=2", "--prior.hidden=[4]"]
TINY += ["--latent-dim=2", "--batch-size=4", "--backend=eager", "--evaluate-every=2"]

# What a damaged run may take on: of other types, of other values, or too deep.
VALUES: list[Any] = [None, True, 0, -1, 2**70, 1.5, "", "x", [], [[]], {}, {"name": "standard"}]
VALUES += [{"": None}, [3, "x"], float("nan")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps with several checkpoints, evaluated."""
    folder = tmp_path_factory.mktemp("whole")
    np.save(folder / "data.npy", np.random.default_rng(0).normal(size=(30, 3)))
    where = ["--data", str(folder / "data.npy"), "--out", str(folder / "run")]
    assert outcome("train", *TINY, *where, "--steps=6").status == 0
    assert outcome("evaluate", str(folder / "run"), "--metrics=elbo,distance").status == 0
    return folder / "run"


KINDS = ["bytes", "bytes", "value", "value", "gone", "foreign", "swap", "folder"]


def harm(run: Path, kind: str, data: st.DataObject) -> None:
    """Do something to a run that no command of ours does."""
    files = sorted(path for path in run.rglob("*") if path.is_file() and path.suffix != ".lock")
    top = [path for path in files if path.parent == run]  # checkpoints have digests
    path = data.draw(st.sampled_from([*files, *top * 3]), label="file")
    match kind:
        case "bytes":
            path.write_bytes(data.draw(damaged(path.read_bytes())))
        case "value":
            if path.suffix == ".json":
                content = json.loads(path.read_text())
                replace(content, data)
                path.write_text(json.dumps(content))
            elif path.suffix == ".jsonl":
                record = data.draw(st.sampled_from([*VALUES, {"step": "x"}]))
                with path.open("a") as file:
                    file.write(json.dumps(record) + "\n")
        case "gone":
            path.unlink()
        case "foreign":
            path.with_name(
                data.draw(st.sampled_from(["notes.txt", "1", "abc", "000000009"]))
            ).touch()
        case "swap":
            other = data.draw(st.sampled_from(files))
            content = path.read_bytes()
            path.write_bytes(other.read_bytes())
            other.write_bytes(content)
        case "folder":
            path.unlink()
            path.mkdir()


def replace(content: Any, data: st.DataObject) -> None:
    """Put another value somewhere into JSON, or take one out."""
    while isinstance(content, dict) and content:
        key = data.draw(st.sampled_from(sorted(content)))
        if not isinstance(content[key], dict) or data.draw(st.booleans()):
            if data.draw(st.integers(0, 3)) == 0:
                del content[key]
            else:
                content[key] = data.draw(st.sampled_from(VALUES))
            return
        content = content[key]


COMMANDS = [
    ["evaluate", "RUN", "--metrics=elbo,distance", "--latent-samples=20"],
    ["sample", "RUN", "--number=2"],
    ["sample", "RUN", "--number=2", "--checkpoint=best"],
    ["compare", "RUN", "WHOLE"],
    ["compare", "WHOLE", "RUN"],
    ["train", "--resume", "RUN", "--steps=8"],
    ["train", "--resume", "RUN", "--steps=8", "--checkpoint=4"],
]


@given(st.sampled_from(COMMANDS), st.sampled_from(KINDS), st.data())
def test_a_damaged_run_is_used_or_refused_and_left_alone(
    run: Path, command: list[str], kind: str, data: st.DataObject
) -> None:
    with scratch() as folder:
        place = folder / "run"
        shutil.copytree(run, place)
        harm(place, kind, data)
        before = listing(place)
        names = {"RUN": str(place), "WHOLE": str(run)}
        result = outcome(*(names.get(word, word) for word in command))
        check_ended(result)
        if result.status:
            assert changes(before, listing(place)) <= {".lock"}


def changes(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    """Return the names of files that are new, gone or of other content."""
    names = before.keys() | after.keys()
    return {name for name in names if before.get(name) != after.get(name)}


def test_the_whole_run_is_used_by_every_command(run: Path) -> None:
    with scratch() as folder:
        for number, command in enumerate(COMMANDS):
            place = folder / str(number)
            shutil.copytree(run, place)
            names = {"RUN": str(place), "WHOLE": str(run)}
            result = outcome(*(names.get(word, word) for word in command))
            assert result.status == 0, result
