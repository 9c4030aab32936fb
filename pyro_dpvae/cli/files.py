"""Configuration files of ``dpvae train``: YAML or JSON."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import yaml

__all__ = ["read_file"]

_LARGEST = 10_000  # values in a configuration file


def read_file(path: str) -> dict[str, Any]:
    """Return the options in a file of YAML or JSON, with underscores in their names.

    Raises:
        ValueError: if there is no such file, or it is no mapping of options to plain values.
    """
    if not Path(path).is_file():
        raise ValueError(f"--config must name a file that exists; got {path}")
    try:
        content = _plain(yaml.safe_load(Path(path).read_text()), count())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).replace("\n", " ").replace("unhashable key", "a key that is no text")
        raise ValueError(f"a configuration must be YAML or JSON, got {path}: {reason}") from error
    if not isinstance(content, dict):
        raise ValueError(f"a configuration must map options to values, got {content!r} in {path}")
    if "config" in content:
        raise ValueError(
            f"a configuration must hold options, got a file in it, {content['config']!r}, in "
            f"{path}; name both on the command line"
        )
    return content


def _plain(content: Any, numbers: Iterator[int]) -> Any:
    """Return the content of a file with what YAML repeats written out, as JSON could hold it."""
    if next(numbers) >= _LARGEST:  # a few lines of repetitions of repetitions fill any memory
        raise ValueError(f"it holds more than {_LARGEST} values")
    if isinstance(content, dict):
        for key in content:
            if not isinstance(key, str):
                raise ValueError(f"names of options must be text, got {key!r}")
        return {key.replace("-", "_"): _plain(value, numbers) for key, value in content.items()}
    if isinstance(content, list):
        return [_plain(value, numbers) for value in content]
    if content is None or isinstance(content, bool | int | float | str):
        return content
    raise ValueError(f"values must be numbers, text, lists or mappings, got {content!r}")
