"""Ranks, the processes that train together, and communication between them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_map_only

from pyro_dpvae._randomness import forked_rng, seed_of

__all__ = [
    "Ranks",
    "average_",
    "broadcast_",
    "gather_batch",
    "gather_objects",
    "gather_shares",
    "greatest",
    "map_over_ranks",
    "on_first_rank",
    "ranks",
    "refusing_together",
    "rehearsal",
    "shared",
    "shared_object",
]

Item = TypeVar("Item")
Result = TypeVar("Result")

_alone: ContextVar[bool] = ContextVar("_alone", default=False)


@dataclass(frozen=True)
class Ranks:
    """The rank of this process.

    Attributes:
        index: its number, from 0.
        count: the number of ranks.
    """

    index: int
    count: int


def ranks() -> Ranks:
    """Return the rank in PyTorch's default process group; (0, 1) without a group."""
    if not (dist.is_available() and dist.is_initialized()):
        return Ranks(0, 1)
    return Ranks(dist.get_rank(), dist.get_world_size())


def gather_batch(x: Tensor) -> Tensor:
    """Concatenate the shards of a batch on all ranks to (count * batch, ...), rank by rank.

    All ranks must call it, with shards of one shape. If every rank then computes the same loss,
    the *mean* of the gradients over ranks is the gradient of that loss: the backward pass returns
    the gradient of the own shard times the number of ranks, and no rank waits for others.

    Args:
        x: the shard of this rank, of shape (batch, ...).
    """
    return x if ranks().count == 1 else _gather(x)


def shared(x: Tensor) -> Tensor:
    """Return rank zero's tensor, of the same shape on all ranks, without gradients."""
    return x if ranks().count == 1 else _shared(x)


def broadcast_(tensors: Iterable[Tensor]) -> None:
    """Copy rank zero's values to the tensors of all ranks, in place."""
    if ranks().count == 1:
        return
    for tensor in tensors:
        whole = tensor.detach().contiguous()
        dist.broadcast(whole, 0)
        tensor.detach().copy_(whole)


def average_(tensors: Sequence[Tensor]) -> None:
    """Average tensors over ranks, in place, with one all-reduce for each dtype."""
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
    """Return a small object of every rank, such as sizes or random states, rank by rank."""
    count = ranks().count
    if count == 1:
        return [value]
    found: list[Any] = [None] * count
    dist.all_gather_object(found, value)
    return found


def greatest(number: int, *, device: torch.device | str) -> int:
    """Return the maximum of a number over ranks by an all-reduce on a device."""
    if ranks().count == 1:
        return number
    found = torch.tensor(number, device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def shared_object(value: Any) -> Any:
    """Return rank zero's object on every rank."""
    if ranks().count == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held, 0)
    return held[0]


@contextmanager
def rehearsal() -> Iterator[None]:
    """Let :func:`gather_batch` and :func:`shared` send no messages inside the context.

    Each rank uses its own shard for those of all. So a step can be captured and checked without
    waiting for ranks that capture at another time, or not at all.
    """
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def gather_shares(parts: Sequence[Result], *, device: torch.device | str) -> list[Result]:
    """Return the results of all ranks for all items, in order, with tensors on a device.

    Args:
        parts: this rank's results, for every count-th item starting at its index.
        device: device of the returned tensors.
    """
    if ranks().count == 1:
        return list(parts)
    # Via the CPU, since tensors of another GPU would come back on that one.
    found = gather_objects(tree_map_only(Tensor, Tensor.cpu, list(parts)))
    most = max(map(len, found))
    ordered = [share[number] for number in range(most) for share in found if number < len(share)]
    return tree_map_only(Tensor, lambda tensor: tensor.to(device), ordered)


def map_over_ranks(
    function: Callable[[Item], Result], own: Iterable[Item], *, seed: int | None = None
) -> list[Result]:
    """Apply a function to all items, of which each rank computes its share.

    All ranks must call it. Random draws are seeded item by item, so that results do not depend on
    the number of ranks. The random state of the process is restored.

    Args:
        function: maps an item to numbers, or tensors on the CPU.
        own: the items of this rank: every count-th one, starting at its index.
        seed: random seed of all draws; None draws one on rank zero.

    Raises:
        Exception: on all ranks if the function raises on one, as in :func:`refusing_together`.
    """
    here = ranks()
    if seed is None:
        seed = shared_object(int(torch.randint(2**62, ())))
    parts: list[Result] = []
    with refusing_together():
        for number, item in enumerate(own):
            with forked_rng(seed_of(seed, here.index + number * here.count)):
                parts.append(function(item))
    return gather_shares(parts, device="cpu")


def on_first_rank(function: Callable[[], object]) -> None:
    """Call a function on rank zero only, such as one that writes a file, while others wait.

    Raises:
        Exception: on all ranks if it raises, as in :func:`refusing_together`.
    """
    with refusing_together():
        if ranks().index == 0:
            function()


@contextmanager
def refusing_together() -> Iterator[None]:
    """Raise the error of one rank on all ranks, so that none waits for a rank that failed.

    All ranks must enter the context, and may not communicate inside.

    Raises:
        ValueError: on all ranks, if one raises it.
        TypeError: likewise.
        OSError: likewise, with the same class and number.
    """
    refusal: Exception | None = None
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        refusal = error
    if ranks().count == 1:
        if refusal is not None:
            raise refusal
        return
    found = next((one for one in gather_objects(_told(refusal)) if one is not None), None)
    if refusal is not None and _told(refusal) == found:
        raise refusal
    if found is not None:
        kind, arguments = found
        raise kind(*arguments) from refusal


def _told(refusal: Exception | None) -> tuple[type[Exception], tuple[Any, ...]] | None:
    """Return the class and arguments to raise an error again in every process."""
    if refusal is None:
        return None
    if isinstance(refusal, OSError):
        # The class of an OSError follows from its number, which a message alone lacks.
        kind = next(k for k in type(refusal).__mro__ if k.__module__ == "builtins")
        if refusal.errno is None or refusal.strerror is None:
            return kind, (str(refusal),)
        where = () if refusal.filename is None else (str(refusal.filename),)
        return kind, (refusal.errno, refusal.strerror, *where)
    return (TypeError if isinstance(refusal, TypeError) else ValueError), (str(refusal),)


# Custom operations, so that they are captured with a step and replayed like any other.


@torch.library.custom_op("pyro_dpvae::gather", mutates_args=())
def _gather(x: Tensor) -> Tensor:
    if _alone.get():
        return torch.cat([x] * _count())
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
    if not _alone.get():
        dist.broadcast(first, 0)
    return first


@_shared.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _count() -> int:
    return dist.get_world_size()
