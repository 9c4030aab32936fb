"""Libraries that read some formats, imported when a file needs them."""

from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["library"]


def library(name: str, path: Path) -> Any:
    """Return a library that reads or writes a file.

    Raises:
        ImportError: if it is not installed, with the extra that brings it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"the file {path} needs {name.partition('.')[0]}, which is not installed; install "
            "pyro-dpvae[formats]"
        ) from error
