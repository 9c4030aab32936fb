"""Locks of folders: only one process at a time works in a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pyro_dpvae._files import make_folder, refusing

__all__ = ["LOCK", "locked"]

LOCK = ".lock"
"""The name of the lock file of a folder."""

_TRAINING = "only one process may train in a run folder, and another one trains"


@contextmanager
def locked(
    path: Path, rule: str = _TRAINING, *, name: str = LOCK, wait: bool = False
) -> Iterator[None]:
    """Hold the lock of a folder; the system releases it even if the process is killed.

    Args:
        path: the folder, created if missing.
        rule: start of the error message, before the folder.
        name: name of the lock file.
        wait: whether to wait for the other process instead of raising.

    Raises:
        BlockingIOError: if another process holds the lock.
        OSError: if the folder cannot be written, or its file system has no locks.
    """
    make_folder(path)
    lock = FileLock(path / name)
    try:
        with refusing(path):
            lock.acquire(timeout=-1 if wait else 0)
    except Timeout as error:
        raise BlockingIOError(
            f"{rule} in {path}; wait until it ends, or choose another folder with --out"
        ) from error
    except NotImplementedError as error:
        raise OSError(
            f"{path} is on a file system without locks; choose a folder on another one"
        ) from error
    try:
        yield
    finally:
        lock.release()
