"""Gathering of each rank's data to the whole batch."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar, final

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.utils._pytree import tree_leaves

from pyro_dpvae._ranks import gather_batch, gather_objects, ranks

__all__ = ["Gathered", "Over", "check_equal_shapes", "gather_together"]

Over = Callable[[Tensor, int], Tensor]
"""Maps a tensor of one rank's data to that of all ranks: over(tensor, event) has the data in the
dimension before the last ``event`` ones. A tensor without that dimension, or of size 1 there, is
shared by all data of the rank, and is returned with it."""

T = TypeVar("T")


def gather_together(build: Callable[[Over], T], *, size: int) -> T:
    """Return what ``build`` makes of all ranks' tensors, with one message per dtype."""
    found: list[tuple[Tensor, int]] = []

    def note(tensor: Tensor, event: int) -> Tensor:
        shape = [1] * (event + 1 - tensor.dim()) + list(tensor.shape)
        place = len(shape) - 1 - event
        shape[place] = size
        tensor = tensor.expand(shape)
        found.append((tensor, place))
        return tensor

    build(note)
    wholes = iter(_gather_all(found, size))
    return build(lambda _tensor, _event: next(wholes))


def check_equal_shapes(args: Any, kwargs: Any) -> None:
    """Raise on every rank if batches have different shapes, before one waits for another."""
    leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    shapes = [tuple(leaf.shape) for leaf in leaves]
    device = leaves[0].device if leaves else torch.device("cpu")
    digest = torch.tensor([zlib.crc32(repr(shapes).encode())], device=device)
    if len(set(gather_batch(digest).tolist())) > 1:
        raise ValueError(
            "all ranks must take batches of one size in the same step, got tensors of shapes "
            f"{gather_objects(shapes)}, rank by rank; use equal shards, or leave out items that "
            "do not divide evenly"
        )


def _gather_all(found: Sequence[tuple[Tensor, int]], size: int) -> list[Tensor]:
    """Return the tensors of all ranks, concatenated along their dimension of the data."""
    # Values shared by all data, such as a prior's parameters, are sent once for each rank.
    sent = [
        tensor.narrow(place, 0, 1) if tensor.stride(place) == 0 else tensor
        for tensor, place in found
    ]
    parts: list[Tensor] = [tensor for tensor, _ in found]
    kinds = [(tensor.dtype, tensor.device) for tensor in sent]
    for kind in dict.fromkeys(kinds):
        alike = [number for number, own in enumerate(kinds) if own == kind]
        row = torch.cat([sent[number].reshape(-1) for number in alike]).unsqueeze(0)
        columns = gather_batch(row).split([sent[number].numel() for number in alike], 1)
        for number, column in zip(alike, columns, strict=True):
            place, shape = found[number][1], sent[number].shape
            whole = column.reshape(-1, *shape)
            whole = whole.expand(*whole.shape[: place + 1], size, *shape[place + 1 :])
            parts[number] = whole.movedim(0, place).flatten(place, place + 1)
    return parts


@final
class Gathered(TorchDistribution):
    """The distributions over all ranks' data, for the penalties on one rank.

    Each rank computes densities and moments of the whole. Each rank samples for its own data, and
    the samples are gathered: they are equal on all ranks, and all ranks must call for them.

    Args:
        own: the distributions of this rank's data, of batch shape (*particles, batch).
        whole: the distributions over all ranks' data, or the TypeError to raise when anything but
            samples is requested.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, own: Any, whole: Any) -> None:
        self.own = own
        self._whole = whole
        *particles, size = own.batch_shape
        batch = torch.Size([*particles, ranks().count * size])
        super().__init__(batch, own.event_shape, validate_args=False)

    @property
    def whole(self) -> Any:
        """The distributions over all ranks' data, of the same class as each rank's.

        Raises:
            TypeError: if the class cannot be rebuilt.
        """
        if isinstance(self._whole, TypeError):
            raise self._whole
        return self._whole

    @property
    def has_rsample(self) -> bool:
        """True if samples have gradients."""
        return bool(self.own.has_rsample)

    @property
    def support(self) -> Any:
        """The support of one datum's distribution."""
        return self.own.support

    @property
    def mean(self) -> Tensor:
        """The mean, if it is known."""
        return self.whole.mean

    @property
    def variance(self) -> Tensor:
        """The variance, if it is known."""
        return self.whole.variance

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density, in nats, of a value of shape (..., *batch, *event)."""
        return self.whole.log_prob(value)

    def entropy(self) -> Tensor:
        """Return the entropy, in nats, if it is known."""
        return self.whole.entropy()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples with gradients, of shape (*sample_shape, *batch, *event)."""
        return self._of_all(self.own(torch.Size(sample_shape)))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples without gradients, of shape (*sample_shape, *batch, *event)."""
        with torch.no_grad():
            return self._of_all(self.own(torch.Size(sample_shape)))

    def _of_all(self, draws: Tensor) -> Tensor:
        plate = -1 - len(self.event_shape)
        return gather_batch(draws.movedim(plate, 0)).movedim(0, plate)
