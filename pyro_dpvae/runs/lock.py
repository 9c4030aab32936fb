"""One process at a time works in a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pyro_dpvae._files import make_folder, refusing

__all__ = ["LOCK", "locked"]

LOCK = ".lock"
"""The name of the file whose lock a process holds while it works in a folder."""

_TRAINING = "a run folder is trained by one process at a time, and another one trains"


@contextmanager
def locked(
    path: Path, rule: str = _TRAINING, *, name: str = LOCK, wait: bool = False
) -> Iterator[None]:
    """Hold the lock of a folder; it is free again when its process ends, however it ends.

    Args:
        path: the folder, which is made if it is not there.
        rule: what a second process is told, before the place.
        name: of the lock file.
        wait: whether a second process waits until the first is done, rather than being refused.

    Raises:
        BlockingIOError: if another process holds it.
        OSError: if the folder cannot be written, or its file system has no locks.
    """
    make_folder(path)
    lock = FileLock(path / name)
    try:
        with refusing(path):
            lock.acquire(timeout=-1 if wait else 0)
    except Timeout as error:
        raise BlockingIOError(
            f"{rule} in {path}; wait for its end, or name another folder with --out"
        ) from error
    except NotImplementedError as error:
        raise OSError(
            f"the file system of {path} must have locks, and it has none; train in another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()
