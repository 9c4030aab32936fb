"""Batches for metrics: one tensor as one batch, and evenly spaced subsets."""

from typing import Any, TypeVar, overload

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset, Subset

__all__ = ["as_batches", "evenly_spaced", "spread", "stacked"]

Batched = TypeVar("Batched")


def evenly_spaced(count: int, size: int) -> Int[Tensor, " chosen"]:
    """Return the indices of at most ``count`` of ``size`` items, evenly spaced.

    Files are often sorted by class, so that the first items are not representative.

    Example:
        >>> evenly_spaced(4, 10), evenly_spaced(4, 2)
        (tensor([0, 2, 5, 7]), tensor([0, 1]))
    """
    chosen = min(count, size)
    return torch.arange(chosen) * size // chosen


@overload
def spread(split: Tensor, count: int) -> Tensor: ...
@overload
def spread(split: Dataset[Any], count: int) -> Subset[Any]: ...
def spread(split: Tensor | Dataset[Any], count: int) -> Tensor | Subset[Any]:
    """Return at most ``count`` evenly spaced items of a split, in order.

    Example:
        >>> spread(torch.arange(10), 4)
        tensor([0, 2, 5, 7])
    """
    chosen = evenly_spaced(count, len(split))  # type: ignore[arg-type]  # untyped, but there
    return split[chosen] if isinstance(split, Tensor) else Subset(split, chosen.tolist())


def stacked(split: Tensor | Dataset[Any], count: int) -> Tensor:
    """Return at most ``count`` evenly spaced items of a split as one tensor.

    Example:
        >>> stacked(torch.arange(10), 4)
        tensor([0, 2, 5, 7])
    """
    chosen = spread(split, count)
    if isinstance(chosen, Tensor):
        return chosen
    return torch.stack([chosen[index] for index in range(len(chosen))])


def as_batches(batches: Tensor | Batched) -> list[Tensor] | Batched:
    """Return batches; a single tensor is one batch, not one batch per row.

    Example:
        >>> [len(batch) for batch in as_batches(torch.zeros(5, 2))]
        [5]
    """
    return [batches] if isinstance(batches, Tensor) else batches
