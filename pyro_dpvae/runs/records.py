"""The records of a run: lines of ``metrics.jsonl``, each a JSON object."""

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyro_dpvae.errors import CheckpointError

__all__ = ["last_step", "parse", "plain", "whole_lines"]

_TAIL = 16_384  # bytes, enough for several records


def whole_lines(path: Path, most: int) -> int:
    """Return the number of bytes of complete lines among the first ``most`` bytes."""
    content = path.read_bytes()[:most] if path.exists() else b""
    return content.rfind(b"\n") + 1


def last_step(path: Path) -> int:
    """Return the step of the last record with a step, or 0; reads only the end of the file."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        lines = file.read().splitlines()
    for line in reversed(lines):
        with suppress(ValueError, RecursionError):  # such as an incomplete line
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                return int(record["step"])
    return 0


def plain(value: Any) -> Any:
    """Return a record for JSON, with numbers that are not finite as strings.

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
    """Return the record in a line.

    Raises:
        CheckpointError: if it is not a JSON object, with the line and its place.
    """
    with suppress(ValueError, RecursionError):
        record = json.loads(line)
        if isinstance(record, dict):
            return record
    raise CheckpointError(
        f"every record must be a JSON object, got {line[:40]!r} in {where}; to resume without "
        "the records so far, remove the file"
    )
