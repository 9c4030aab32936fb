"""Data that are not in memory, read ahead by processes that stay from pass to pass."""

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pyro_dpvae.errors import DataError, ReaderError

__all__ = ["Stream"]


@final
class Stream:
    """Batches of a map-style data set, by lists of indices.

    The processes that read start with the first pass and end with the stream, so that a pass costs
    no start. A pass that runs inside another, such as one that fits a part of a guide in the
    middle of training, has processes of its own.

    Args:
        data: of tensors of one shape.
        workers: how many processes read; 0 reads in this one.
        pinned: whether batches are in page-locked memory, from which a GPU copies meanwhile.
    """

    def __init__(self, data: Dataset[Any], *, workers: int, pinned: bool) -> None:
        self._stacks, self._workers, self._pinned = _Stacks(data), workers, pinned
        self._plan = _Plan()
        self._loader = self._load(self._plan, stay=workers > 0)
        self._busy = False

    def pinned(self, pinned: bool) -> "Stream":
        """Return a stream of the same data whose batches are in page-locked memory, or are not."""
        return Stream(self._stacks.data, workers=self._workers, pinned=pinned)

    def batches(self, plan: Iterable[list[int]]) -> Iterator[tuple[Tensor, ...]]:
        """Yield the data of each list of indices, in order, and what belongs to them.

        Raises:
            ValueError: if a datum cannot be read, with the reason.
            OSError: if a process that reads has ended.
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
            # Its own, or each pass would draw from that of the process.
            generator=torch.Generator(),
        )


class _Plan:
    """The indices of each batch of the next pass, told to processes that stay."""

    lists: Iterable[list[int]] = ()

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.lists)


@dataclass(frozen=True)
class _Failure:
    """Why data cannot be read: a DataLoader would make a traceback of an exception's message."""

    reason: str


class _Stacks(Dataset[Any]):
    """Several data of a data set as one tensor, and likewise what belongs to them."""

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
        except Exception as error:  # whatever a user's data set may raise
            return _Failure(
                f"every datum must be readable, and datum {index} is not: "
                f"{type(error).__name__}: {error}"
            )


def _checked(loader: DataLoader[Any]) -> Iterator[tuple[Tensor, ...]]:
    try:
        for batch in _started(loader):
            if isinstance(batch, _Failure):
                raise DataError(batch.reason)
            yield batch
    except (RuntimeError, ConnectionError, EOFError) as error:
        # A process that ends while it hands on a batch leaves a broken connection.
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise ReaderError(
            f"processes that read data must stay, and one has ended ({error}); give it more "
            "memory, use fewer --workers, or look whether the files of the data are whole"
        ) from error


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    """Start a pass whose processes may end without an exception in the middle of other work.

    PyTorch has a handler of SIGCHLD that raises wherever the program is, also within a training
    step, and nothing could go on from half a step. Without it, a process that has ended is
    noticed where its batch is missing.
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
    # Ctrl-C goes to all processes of a terminal. Training then ends with an evaluation, for which
    # data are read; these processes end when the first does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
