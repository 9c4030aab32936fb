"""Atomic writing of files, and reading with clear errors."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

__all__ = [
    "files_below",
    "make_folder",
    "read_bytes",
    "read_metadata",
    "read_tensors",
    "refusing",
    "remove_leftovers",
    "write_whole",
]


def files_below(folder: Path, *, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yield the files of a folder and its subfolders, linked folders included.

    Args:
        folder: the folder.
        above: folders whose content is being read already; a link to one of them is not followed.
    """
    here = folder.resolve()
    if here in above:
        return
    for path in folder.iterdir():
        if path.is_dir():
            yield from files_below(path, above=(*above, here))
        else:
            yield path


def make_folder(path: Path) -> None:
    """Make a folder and its parents if they do not exist.

    Raises:
        NotADirectoryError: if one of them is a file.
        OSError: if it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        files = [place for place in (path, *path.parents) if place.is_file()]
        raise NotADirectoryError(
            f"{path} cannot be a folder: {files[0] if files else path} is a file; choose another "
            "folder, or remove the file"
        ) from error
    except OSError as error:
        raise _refusal(path, error) from error


_REMEDY = "free space there, or name another folder"


def write_whole(path: Path, content: bytes | bytearray, *, remedy: str = _REMEDY) -> None:
    """Write a file such that a reader sees the old one or the new one, whatever ends between.

    Raises:
        OSError: if it cannot be written; the old file is unharmed.
    """
    make_folder(path.parent)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with refusing(path, remedy=remedy):
            _write_synced(temporary, content)
            os.replace(temporary, path)
            _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that killed processes left in a folder."""
    for path in folder.glob("*.tmp"):
        process = path.name.split(".")[-2]
        if process.isdigit() and not _lives(int(process)):
            path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def _write_synced(path: Path, content: bytes | bytearray) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Wait until the disk has the names of a folder's files, where the system can wait for it."""
    if os.name != "posix":
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems
            raise
    finally:
        os.close(folder)


def read_bytes(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        OSError: if the path is not a readable file.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise type(error)(
            f"{path} cannot be read: {reason}; restore the file, or remove what is in its place"
        ) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file.

    Raises:
        ValueError: if it is not a safetensors file.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise _unreadable(path, error) from error


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file.

    Raises:
        ValueError: if it is not a safetensors file.
    """
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: SafetensorError) -> ValueError:
    return ValueError(f"{path} cannot be read as a safetensors file ({error}); remove it")


@contextmanager
def refusing(path: Path, *, remedy: str = _REMEDY) -> Iterator[None]:
    """Say of errors of the operating system which path could not be written, and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # it already names them
            raise
        raise _refusal(path, error, remedy) from error


def _refusal(
    path: Path, error: OSError, remedy: str = "make it writable, or name another folder"
) -> OSError:
    reason = (error.strerror or str(error)).lower()
    return type(error)(f"{path} must be writable, and the system refuses: {reason}; {remedy}")
