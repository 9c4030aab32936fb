"""Optional libraries for some formats, imported when a file needs them."""

from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["library"]


def library(name: str, path: Path) -> Any:
    """Return a library that reads or writes a file.

    Raises:
        ImportError: if it is not installed, with the extra that installs it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"a library is missing: the file {path} needs {name.partition('.')[0]}; install "
            "pyro-dpvae[formats]"
        ) from error
