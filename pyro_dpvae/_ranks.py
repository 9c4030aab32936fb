"""The processes that train together, called ranks, and the tensors that they share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Ranks", "average_", "broadcast_", "gather_batch", "gather_objects", "ranks", "shared"]


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        index: its number, from 0.
        count: how many there are.
    """

    index: int
    count: int


def ranks() -> Ranks:
    """Return this process among the ranks of PyTorch's default group; (0, 1) without a group."""
    if not (dist.is_available() and dist.is_initialized()):
        return Ranks(0, 1)
    return Ranks(dist.get_rank(), dist.get_world_size())


def gather_batch(x: Tensor) -> Tensor:
    """Return the parts of a batch on all ranks as one, (count * batch, ...), rank by rank.

    All ranks must call it, with parts of one shape. Where every rank goes on to compute the same
    loss of what is gathered, gradients are such that their *mean* over ranks is the gradient of
    that loss: a part's own gradient, which every rank knows, times the number of ranks. So no rank
    has to wait for others in the backward pass.

    Args:
        x: the part of this rank, of shape (batch, ...).
    """
    return x if ranks().count == 1 else _gather(x)


def shared(x: Tensor) -> Tensor:
    """Return the tensor of the first rank, of the same shape on all, without gradients."""
    return x if ranks().count == 1 else _shared(x)


def broadcast_(tensors: Iterable[Tensor]) -> None:
    """Give tensors, in place, the values that they have on the first rank."""
    if ranks().count == 1:
        return
    for tensor in tensors:
        whole = tensor.detach().contiguous()
        dist.broadcast(whole, 0)
        tensor.detach().copy_(whole)


def average_(tensors: Sequence[Tensor]) -> None:
    """Replace tensors, in place, by their means over ranks, in one message for each dtype."""
    count = ranks().count
    if count == 1:
        return
    for kind in sorted({(str(tensor.dtype), str(tensor.device)) for tensor in tensors}):
        alike = [t for t in tensors if (str(t.dtype), str(t.device)) == kind]
        bucket = torch.cat([tensor.detach().reshape(-1) for tensor in alike])
        dist.all_reduce(bucket)
        bucket /= count
        sizes = [tensor.numel() for tensor in alike]
        for tensor, mean in zip(alike, bucket.split(sizes), strict=True):
            tensor.detach().copy_(mean.reshape(tensor.shape))


def gather_objects(value: Any) -> list[Any]:
    """Return a small value of every rank, such as sizes or random states, rank by rank."""
    count = ranks().count
    if count == 1:
        return [value]
    found: list[Any] = [None] * count
    dist.all_gather_object(found, value)
    return found


# As operations of their own they are recorded with a step and replayed like any other.


@torch.library.custom_op("pyro_dpvae::gather", mutates_args=())
def _gather(x: Tensor) -> Tensor:
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(_count())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


@_gather.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty((_count() * len(x), *x.shape[1:]))


def _keep_size(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.size = len(inputs[0])


def _own_part(ctx: Any, gradient: Tensor) -> Tensor:
    here = ranks()
    return gradient[here.index * ctx.size : (here.index + 1) * ctx.size] * here.count


_gather.register_autograd(_own_part, setup_context=_keep_size)


@torch.library.custom_op("pyro_dpvae::shared", mutates_args=())
def _shared(x: Tensor) -> Tensor:
    first = x.detach().clone(memory_format=torch.contiguous_format)
    dist.broadcast(first, 0)
    return first


@_shared.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _count() -> int:
    return dist.get_world_size()
