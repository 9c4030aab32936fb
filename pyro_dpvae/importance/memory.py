"""The number of samples that fit into memory at once, measured on a few samples."""

import gc
import weakref
from collections.abc import Callable
from typing import Any, final

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["draws_that_fit", "peak_bytes"]


def draws_that_fit(run: Callable[[int], object], most: int, *, budget: int) -> int:
    """Return how many samples can be drawn at once: ``most``, or fewer if memory is short.

    Memory is measured, not computed, so it covers any prior, guide, decoder and likelihood, and
    users' own programs. Memory may grow less than linearly, for example if a prior scores its
    samples in tiles. So the first estimate from three samples is refined with twice as many
    samples at a time. No measurement is expected to exceed the budget.

    Args:
        run: draws a number of samples.
        most: the largest number of interest.
        budget: bytes of all tensors that are alive at once.

    Example:
        >>> import torch
        >>> draws_that_fit(lambda draws: torch.zeros(draws, 250), 64, budget=10_000)
        10
    """
    size, small = min(3, most), peak_bytes(lambda: run(1))
    peak = peak_bytes(lambda: run(size))
    slope = (peak - small) / max(size - 1, 1)
    while size < most:
        fits = most if slope <= 0 else size + int((budget - peak) // slope)
        if fits >= most:
            return most
        if fits < 2 * size:
            return max(fits, 1)
        before, earlier, size = size, peak, 2 * size
        peak = peak_bytes(lambda: run(size))  # noqa: B023  # run at once
        slope = (peak - earlier) / (size - before)
    return most


def peak_bytes(run: Callable[[], object]) -> int:
    """Return the largest number of bytes alive at once in tensors made by a run.

    Memory inside a single operation is not counted. Garbage collection is off meanwhile, so that
    two measurements of one run are equal.

    Example:
        >>> import torch
        >>> peak_bytes(lambda: (torch.zeros(100) + 1).sum())
        800
    """
    meter, enabled = _Meter(), gc.isenabled()
    gc.disable()
    try:
        with meter:
            run()
    finally:
        if enabled:
            gc.enable()
    return meter.peak


@final
class _Meter(TorchDispatchMode):
    """Count the bytes of storages that operations return, while they are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[int, int] = {}
        self._total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True would import the compiler at the first operation, which takes a second

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return found

    def _count(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._alive:
            return
        self._alive[key] = storage.nbytes()
        self._total += storage.nbytes()
        self.peak = max(self.peak, self._total)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self._total -= self._alive.pop(key, 0)
