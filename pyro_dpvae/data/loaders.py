"""A DataLoader of the user's as batches whose order a resumed run knows."""

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
    """Return the batches of a DataLoader, in an order of their own that depends on the seed.

    Taken from the loader are its data set, batch size (of each rank), whether it shuffles, whether
    it drops the last batch, and how many processes read. Real numbers stay as they are; images of
    whole numbers become shades in [0, 1]. Entries of an item behind its first, such as labels,
    stay beside the data.

    Args:
        loader: of a map-style data set of tensors, or of tuples of them.
        seed: of the order.
        rank: whose share the batches are.
        ranks: how many shares there are.

    Raises:
        ValueError: if the loader has an order or a way to put items together of its own.

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
            "a DataLoader that is trained on must take its data in order or shuffle all of them, "
            f"so that a resumed run goes on with the same batches, got {type(sampler).__name__} "
            f"and batch_size {loader.batch_size}; make it with shuffle=True and a batch_size, and "
            "choose or repeat data in its dataset"
        )
    if loader.collate_fn is not default_collate:
        raise DataError(
            "a DataLoader that is trained on must put items together as PyTorch does, got a "
            "collate_fn of its own; let its dataset return what that function makes of an item"
        )
    data = loader.dataset
    whole: Any = data
    if isinstance(data, TensorDataset):
        whole = data.tensors if len(data.tensors) > 1 else data.tensors[0]
    images = len(split_shape(data)) == 3
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
