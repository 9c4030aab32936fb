"""Two run folders compared bit for bit, and checkpoints held against their own digests."""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

__all__ = ["check_checkpoints", "differences"]

# What a run that was killed may have of its own: how long it took, and where.
# The text of its configuration names its folder; the bytes of its records have seconds.
_OWN = ("seconds", "recorded_seconds", "logged", "config")


def check_checkpoints(run: Path) -> tuple[int, list[str]]:
    """Return how many checkpoints a run has, and what is wrong with them.

    Whatever has the name of a checkpoint must be whole at every moment. This reads the manifest
    by itself, so that what the library overlooks is seen.
    """
    problems = []
    folders = sorted(path for path in run.glob("checkpoints/*") if path.name.isdigit())
    for folder in folders:
        try:
            files = json.loads((folder / "manifest.json").read_text())["files"]
            for name, said in files.items():
                content = (folder / name).read_bytes()
                if hashlib.sha256(content).hexdigest() != said["sha256"]:
                    problems.append(f"{folder / name} has another digest than its manifest says")
        except (OSError, ValueError, KeyError) as error:
            problems.append(f"{folder} is not whole: {error!r}")
    return len(folders), problems


def differences(whole: Path, killed: Path) -> list[str]:
    """Return in what a run that was killed and resumed differs from one that was not."""
    found = []
    one, other = _records(whole), _records(killed)
    if one != other:
        pairs = enumerate(zip(one, other, strict=False))
        place = next((number for number, (a, b) in pairs if a != b), None)
        found.append(f"{killed}: records differ at {place} ({len(one)} and {len(other)} of them)")
    folders = [max((run / "checkpoints").glob("[0-9]*")) for run in (whole, killed)]
    if folders[0].name != folders[1].name:
        return [*found, f"{killed}: the last checkpoint is {folders[1].name}"]
    for name in ("weights.safetensors", "training.safetensors"):
        paths = [folder / name for folder in folders]
        if paths[0].read_bytes() != paths[1].read_bytes():
            found.append(f"{paths[1]}: tensors differ: {', '.join(_unequal(*paths)) or 'none'}")
    states = [_without_own(json.loads((one / "state.json").read_text())) for one in folders]
    if states[0] != states[1]:
        found.append(f"{folders[1]}: the states differ")
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
