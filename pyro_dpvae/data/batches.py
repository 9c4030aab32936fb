"""Batches of preprocessed data, in an order that depends on seed and epoch alone."""

from collections.abc import Iterator
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.data.dataset import Split, split_shape, split_size
from pyro_dpvae.data.preprocessing import PREPROCESSING, binarise_once, check_preprocessing

__all__ = ["Batches"]


@final
class Batches:
    """One split of a data set, cut into batches.

    Data in memory live on the device, images as uint8, and a batch is one gather; larger sets are
    read by a ``DataLoader``. Order and noise of a pass come from generators of their own, so they
    neither depend on nor disturb the random state of the process.

    Args:
        split: the data.
        batch_size: data in a batch; the last of a pass may be smaller.
        preprocessing: one of ``PREPROCESSING``.
        device: where batches are.
        seed: of order and noise.
        shuffle: whether each pass has an order of its own; otherwise it is the split's.

    Raises:
        ValueError: if the batch is larger than the split, or the preprocessing does not suit it.

    Example:
        >>> from pyro_dpvae.data import load
        >>> batches = Batches(load("digits").train, batch_size=100, preprocessing="grey")
        >>> next(batches.epoch(0)).shape
        torch.Size([100, 1, 8, 8])
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        preprocessing: str,
        device: str | torch.device = "cpu",
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        self.size = split_size(split)
        self.item_shape = split_shape(split)
        self.batch_size = check_positive_int("batch_size", batch_size)
        if batch_size > self.size:
            raise ValueError(
                f"batch_size must be at most the number of data, got {batch_size} for "
                f"{self.size}; use a smaller --batch-size"
            )
        check_preprocessing(preprocessing, images=len(self.item_shape) == 3)
        self.preprocessing = preprocessing
        self.device = torch.device(device)
        self.seed, self.shuffle = seed, shuffle
        if isinstance(split, Tensor):
            data = binarise_once(split) if preprocessing == "binary-static" else split
            self._data: Tensor | Dataset[Any] = data.to(self.device)
        else:
            self._data = _Numbered(split, binarise=preprocessing == "binary-static")

    def __len__(self) -> int:
        return -(-self.size // self.batch_size)

    def epoch(self, number: int) -> Iterator[Tensor]:
        """Yield the batches of a pass, each of shape (batch, *item_shape), as float32."""
        generator = torch.Generator().manual_seed(_mix(self.seed, number))
        noise = torch.Generator(self.device).manual_seed(_mix(self.seed, number) + 1)
        indices = (
            torch.randperm(self.size, generator=generator)
            if self.shuffle
            else torch.arange(self.size)
        )
        preprocess = PREPROCESSING[self.preprocessing]
        for batch in self._batches(indices):
            yield preprocess(batch, noise)

    def _batches(self, indices: Tensor) -> Iterator[Tensor]:
        if isinstance(self._data, Tensor):
            for chosen in indices.to(self.device).split(self.batch_size):
                yield self._data[chosen]
            return
        loader = DataLoader(
            self._data,
            batch_size=self.batch_size,
            sampler=indices.tolist(),
            num_workers=2,
            pin_memory=self.device.type == "cuda",
        )
        for batch in loader:
            yield batch.to(self.device, non_blocking=True)


class _Numbered(Dataset[Tensor]):
    """A lazy split whose images may be binarised, each by its own index."""

    def __init__(self, split: Dataset[Any], *, binarise: bool) -> None:
        self.split, self.binarise = split, binarise

    def __len__(self) -> int:
        return split_size(self.split)

    def __getitem__(self, index: int) -> Tensor:
        image: Tensor = self.split[index]
        return binarise_once(image[None], index)[0] if self.binarise else image


def _mix(seed: int, epoch: int) -> int:
    # Two passes of one seed, or one pass of two seeds, must not share a generator's state.
    return (seed * 1_000_003 + epoch) * 2
