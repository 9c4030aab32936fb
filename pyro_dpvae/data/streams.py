"""Data that are not in memory, read ahead by worker processes that persist between epochs."""

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pyro_dpvae.errors import DataError, ReaderError

__all__ = ["Stream"]


@final
class Stream:
    """Read batches of a map-style data set by lists of indices.

    Worker processes start with the first epoch and end with the stream, so that later epochs start
    at once. An epoch that runs inside another, such as one that fits a part of a guide during
    training, has its own processes.

    Args:
        data: data set of tensors of one shape.
        workers: number of worker processes; 0 reads in this one.
        pinned: put batches into page-locked memory, for asynchronous copies to a GPU.
    """

    def __init__(self, data: Dataset[Any], *, workers: int, pinned: bool) -> None:
        self._stacks, self._workers, self._pinned = _Stacks(data), workers, pinned
        self._plan = _Plan()
        self._loader = self._load(self._plan, stay=workers > 0)
        self._busy = False

    def pinned(self, pinned: bool) -> "Stream":
        """Return a stream of the same data with or without page-locked memory."""
        return Stream(self._stacks.data, workers=self._workers, pinned=pinned)

    def batches(self, plan: Iterable[list[int]]) -> Iterator[tuple[Tensor, ...]]:
        """Yield the items of each list of indices, in order, with their further values.

        Raises:
            ValueError: if an item cannot be read, with the reason.
            OSError: if a worker process has ended.
        """
        if self._busy:
            yield from _checked(self._load(plan, stay=False))
            return
        self._busy, self._plan.lists = True, plan
        try:
            yield from _checked(self._loader)
        finally:
            self._busy = False

    def _load(self, plan: Iterable[list[int]], *, stay: bool) -> DataLoader[Any]:
        return DataLoader(
            self._stacks,
            batch_size=None,
            sampler=plan,
            num_workers=self._workers,
            persistent_workers=stay,
            pin_memory=self._pinned,
            worker_init_fn=_ignore_interrupts,
            # Its own generator, since each epoch would draw from the process's otherwise.
            generator=torch.Generator(),
        )


class _Plan:
    """The indices of each batch of the next epoch, for persistent workers."""

    lists: Iterable[list[int]] = ()

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.lists)


class _Failure(str):
    """The reason of a failed read; a DataLoader would turn an exception into a traceback."""


class _Stacks(Dataset[Any]):
    """Items of a data set stacked to one tensor, and likewise their further values."""

    def __init__(self, data: Dataset[Any]) -> None:
        self.data = data

    def __getitem__(self, indices: list[int]) -> tuple[Tensor, ...] | _Failure:
        index = None
        try:
            items = []
            for index in indices:
                item = self.data[index]
                items.append((item,) if isinstance(item, Tensor) else item)
            return tuple(map(torch.stack, zip(*items, strict=True)))
        except DataError as error:
            return _Failure(str(error))
        except Exception as error:  # whatever a user's data set raises
            return _Failure(f"item {index} cannot be read: {type(error).__name__}: {error}")


def _checked(loader: DataLoader[Any]) -> Iterator[tuple[Tensor, ...]]:
    try:
        for batch in _started(loader):
            if isinstance(batch, _Failure):
                raise DataError(str(batch))
            yield batch
    except (RuntimeError, ConnectionError, EOFError) as error:
        # A worker that ends while it sends a batch breaks the connection.
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise ReaderError(
            f"a worker process that reads data has ended ({error}); free memory, use fewer "
            "workers, or check that the data files are complete"
        ) from error


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    """Start an epoch; a worker that ends must not raise in the middle of other work.

    PyTorch's SIGCHLD handler raises wherever the program is, even inside a training step, from
    which no run can resume. Without it, a missing batch shows that a worker has ended.
    """
    if threading.current_thread() is not threading.main_thread() or os.name != "posix":
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    if _is_of_pytorch(signal.getsignal(signal.SIGCHLD)):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if _is_of_pytorch(before) else before)
    return batches


def _is_of_pytorch(handler: Any) -> bool:
    return getattr(handler, "__module__", "").startswith("torch.utils.data")


def _ignore_interrupts(_worker: int) -> None:
    # Ctrl-C goes to all processes of a terminal. Training then ends with an evaluation, which
    # reads data; workers end with the main process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
