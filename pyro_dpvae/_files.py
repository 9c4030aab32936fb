"""Files that are whole or not there."""

import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

__all__ = ["make_folder", "read_tensors", "write_whole"]


def make_folder(path: Path) -> None:
    """Make a folder and those that it lies in, where they are not there.

    Raises:
        NotADirectoryError: if one of them is a file.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        files = [place for place in (path, *path.parents) if place.is_file()]
        raise NotADirectoryError(
            f"{path} must name a folder, and {files[0] if files else path} is a file; name "
            "another folder, or remove the file"
        ) from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file such that a reader sees the old one or the new one, whatever ends between."""
    make_folder(path.parent)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file.

    Raises:
        ValueError: if it is none.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} must be a safetensors file, and cannot be read as one ({error}); remove it"
        ) from error
