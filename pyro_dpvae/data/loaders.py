"""Conversion of a user's DataLoader to batches in a reproducible order."""

from typing import Any

from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from pyro_dpvae.data.batches import Batches
from pyro_dpvae.data.dataset import first_of, split_shape
from pyro_dpvae.errors import DataError

__all__ = ["batches_of"]


def batches_of(
    loader: DataLoader[Any], *, seed: int = 0, rank: int = 0, ranks: int = 1
) -> Batches:
    """Return the batches of a DataLoader, in their own order that depends on the seed.

    Uses the loader's data set, batch size (per rank), ``drop_last``, number of workers, and
    whether it shuffles. Real numbers are unchanged; images of whole numbers become shades in [0,
    1]. Further entries of an item, such as labels, are kept.

    Args:
        loader: loader of a map-style data set of tensors, or of tuples of them.
        seed: random seed of the order.
        rank: index of this rank.
        ranks: number of ranks.

    Raises:
        ValueError: if the loader has its own sampler or collate_fn.

    Example:
        >>> import torch
        >>> x, y = torch.rand(10, 3), torch.arange(10)
        >>> loader = DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True)
        >>> [len(labels) for _, labels in batches_of(loader).epoch(0)]
        [4, 4, 2]
    """
    sampler = loader.sampler
    plain = isinstance(sampler, SequentialSampler | DistributedSampler) or (
        isinstance(sampler, RandomSampler)
        and not sampler.replacement
        and sampler.num_samples == len(loader.dataset)  # type: ignore[arg-type]
    )
    if loader.batch_size is None or not plain:
        raise DataError(
            "a DataLoader for training must read its data in order or shuffle all of them, so "
            "that a "
            f"resumed run continues with the same batches; got {type(sampler).__name__} and "
            f"batch_size {loader.batch_size}; make it with shuffle=True and a batch_size, and "
            "choose or repeat items in its dataset"
        )
    if loader.collate_fn is not default_collate:
        raise DataError(
            "a DataLoader for training must use PyTorch's default collate_fn, got its own; let "
            "its dataset return the collated form of an item"
        )
    data = loader.dataset
    whole: Any = data
    if isinstance(data, TensorDataset):
        whole = data.tensors if len(data.tensors) > 1 else data.tensors[0]
    images = len(split_shape(data)) > 1
    real = first_of(data[0]).is_floating_point()
    return Batches(
        whole,
        batch_size=loader.batch_size * ranks,
        preprocessing="none" if real or not images else "grey",
        seed=seed,
        shuffle=isinstance(sampler, RandomSampler) or getattr(sampler, "shuffle", False),
        rank=rank,
        ranks=ranks,
        drop_last=loader.drop_last,
        workers=loader.num_workers,
    )
