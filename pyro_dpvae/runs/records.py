"""The lines of ``metrics.jsonl``: JSON objects, each whole or none."""

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyro_dpvae.errors import CheckpointError

__all__ = ["last_step", "parse", "plain", "whole_lines"]

_TAIL = 16_384  # bytes, which hold several records


def whole_lines(path: Path, most: int) -> int:
    """Return how many of so many bytes are whole lines."""
    content = path.read_bytes()[:most] if path.exists() else b""
    return content.rfind(b"\n") + 1


def last_step(path: Path) -> int:
    """Return the step of the last record that has one, from the end of the file alone; or 0."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        lines = file.read().splitlines()
    for line in reversed(lines):
        with suppress(ValueError, RecursionError):  # as of one that is being written
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                return int(record["step"])
    return 0


def plain(value: Any) -> Any:
    """Return what JSON can hold of a record.

    Example:
        >>> plain({"step": 3, "held_out": {"elbo": float("-inf")}})
        {'step': 3, 'held_out': {'elbo': '-inf'}}
    """
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def parse(line: bytes, where: str) -> dict[str, Any]:
    """Return the record of a line.

    Raises:
        ValueError: if it is no JSON object, with the line and where it is.
    """
    with suppress(ValueError, RecursionError):
        record = json.loads(line)
        if isinstance(record, dict):
            return record
    raise CheckpointError(
        f"records must be JSON objects, a line each, got {line[:40]!r} in {where}; remove the "
        "file, and the run goes on without the records so far"
    )
