"""The lines of ``metrics.jsonl``: JSON objects, each whole or none."""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["parse", "plain", "whole_lines"]


def whole_lines(path: Path, most: int) -> int:
    """Return how many of so many bytes are whole lines."""
    content = path.read_bytes()[:most] if path.exists() else b""
    return content.rfind(b"\n") + 1


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
    raise ValueError(
        f"records must be JSON objects, a line each, got {line[:40]!r} in {where}; remove the "
        "file, and the run goes on without the records so far"
    )
