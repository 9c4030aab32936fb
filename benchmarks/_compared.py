"""Two run folders compared bit for bit, and checkpoints held against their own digests."""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

__all__ = ["check_checkpoints", "differences"]

# What a run that was killed may have of its own: how long it took, and where.
# The bytes of its records have seconds.
_OWN = ("seconds", "recorded_seconds", "logged")


def check_checkpoints(run: Path) -> tuple[int, list[str]]:
    """Return how many checkpoints a run has, and what is wrong with them.

    Whatever has the name of a checkpoint must be whole at every moment. This compares digests
    by itself, so that what the library overlooks is seen.
    """
    problems = []
    files = sorted(run.glob("checkpoints/*.safetensors"))
    for file in files:
        try:
            said = _entries(file)["sha256"].encode()
            content = file.read_bytes().replace(said, b"0" * len(said), 1)
            if hashlib.sha256(content).hexdigest().encode() != said:
                problems.append(f"{file} has another digest than its header says")
        except (OSError, SafetensorError, KeyError) as error:
            problems.append(f"{file} is not whole: {error!r}")
    return len(files), problems


def _entries(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as found:
        return dict(found.metadata())


def differences(whole: Path, killed: Path) -> list[str]:
    """Return in what a run that was killed and resumed differs from one that was not."""
    found = []
    one, other = _records(whole), _records(killed)
    if one != other:
        pairs = enumerate(zip(one, other, strict=False))
        place = next((number for number, (a, b) in pairs if a != b), None)
        found.append(f"{killed}: records differ at {place} ({len(one)} and {len(other)} of them)")
    files = [max((run / "checkpoints").glob("*.safetensors")) for run in (whole, killed)]
    if files[0].name != files[1].name:
        return [*found, f"{killed}: the last checkpoint is {files[1].name}"]
    if unequal := _unequal(*files):
        found.append(f"{files[1]}: tensors differ: {', '.join(unequal)}")
    for entry in ("state", "training"):
        states = [_without_own(json.loads(_entries(file)[entry])) for file in files]
        if states[0] != states[1]:
            found.append(f"{files[1]}: the entry {entry} differs")
    metrics = [json.loads((run / "evaluation.json").read_text()) for run in (whole, killed)]
    if metrics[0]["metrics"] != metrics[1]["metrics"]:
        found.append(f"{killed}: the metrics differ")
    return found


def _records(run: Path) -> list[Any]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [_without_own(json.loads(line)) for line in lines]


def _without_own(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_own(one) for key, one in content.items() if key not in _OWN}
    return [_without_own(one) for one in content] if isinstance(content, list) else content


def _unequal(one: Path, other: Path) -> list[str]:
    """Return the names of the tensors that two files do not share bit for bit."""
    with safe_open(one, "pt") as first, safe_open(other, "pt") as second:
        names = {*first.keys(), *second.keys()}
        both = {*first.keys()} & {*second.keys()}
        same = {
            name
            for name in both
            if first.get_tensor(name).numpy().tobytes()
            == second.get_tensor(name).numpy().tobytes()
        }
    return sorted(names - same)
