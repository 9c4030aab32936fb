"""Batches of preprocessed data, in an order that depends on seed and epoch alone."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae._ranks import ranks as present_ranks
from pyro_dpvae._ranks import seed_of
from pyro_dpvae.data.dataset import Split, first_of, split_size
from pyro_dpvae.data.preprocessing import (
    PREPROCESSING,
    binarised_bits,
    check_preprocessing,
    unpacked,
)
from pyro_dpvae.data.strangers import as_items
from pyro_dpvae.data.streams import Stream
from pyro_dpvae.errors import DataError

__all__ = ["Batches", "own_batches"]


@final
class Batches:
    """One split of a data set, cut into batches, or one rank's share of each.

    What numbers mean is decided by :func:`pyro_dpvae.data.meaning_of`, and ``meaning`` says it.
    Data in memory live on the device, 8-bit images as uint8, and a batch is one gather; other data
    are read ahead by processes. The order of a pass depends on the seed and its number, and the
    noise of preprocessing also on batch and rank: neither depends on the random state of the
    process, on how data are read, or on the batches before.

    Batch b of a pass is the same data for any number of ranks, and each rank has an equal share of
    it. Where the last batch of a pass does not divide, fewer data than there are ranks are left
    out.

    Args:
        split: the data: a split of a ``DataSet``, any tensor that ``meaning_of`` takes, or a
            map-style data set of tensors. A tuple of tensors, or a data set of tuples, has the
            data first and then what belongs to each datum, such as its label.
        batch_size: data in a batch, of all ranks together; the last of a pass may be smaller.
        preprocessing: one of ``PREPROCESSING``; ``"none"`` takes real numbers as they are.
        device: where batches are.
        seed: of order and noise.
        shuffle: whether each pass has an order of its own; otherwise it is the split's.
        rank: whose share the batches are, from 0.
        ranks: how many shares there are.
        drop_last: whether a last batch that is smaller than the others is left out.
        workers: how many processes read data that are not in memory; 0 reads in this one.

    Raises:
        ValueError: if the batch is larger than the split or does not divide among the ranks, or
            the preprocessing does not suit the data.

    Example:
        >>> from pyro_dpvae.data import load
        >>> batches = Batches(load("digits").train, batch_size=100, preprocessing="grey")
        >>> next(batches.epoch(0)).shape
        torch.Size([100, 1, 8, 8])
    """

    def __init__(
        self,
        split: Split | tuple[Tensor, ...],
        *,
        batch_size: int,
        preprocessing: str,
        device: str | torch.device = "cpu",
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        ranks: int = 1,
        drop_last: bool = False,
        workers: int = 2,
    ) -> None:
        self._others: tuple[Tensor, ...] = ()
        if isinstance(split, tuple):
            split, *others = split
            self._others = tuple(other.to(device) for other in others)
            _check_others(split, self._others)
        self.size = split_size(split)
        if self.size == 0:
            raise DataError("batches need data, got none")
        self.meaning, split = as_items(split, as_given=preprocessing == "none")
        self.item_shape = self.meaning.item_shape
        self.batch_size = check_positive_int("batch_size", batch_size)
        self.rank, self.ranks = _checked_share(batch_size, rank, ranks)
        if batch_size > self.size:
            raise DataError(
                f"batch_size must be at most the number of data, got {batch_size} for "
                f"{self.size}; use a smaller --batch-size"
            )
        if workers < 0:
            raise DataError(f"workers must be at least 0, got {workers}")
        images = self.meaning.layout == "images" and self.meaning.is_shades
        check_preprocessing(preprocessing, images=images)
        self.preprocessing = preprocessing
        self.device = torch.device(device)
        self.seed, self.shuffle, self.drop_last = seed, shuffle, drop_last
        self._bits = preprocessing == "binary-static"
        if isinstance(split, Tensor):
            data = binarised_bits(split) if self._bits else split
            self._data: Tensor | Stream = data.to(self.device)
        else:
            pinned = self.device.type == "cuda"
            self._data = Stream(
                _BinaryOnce(split) if self._bits else split, workers=workers, pinned=pinned
            )

    def __len__(self) -> int:
        rest = 0 if self.drop_last else self.size % self.batch_size
        return self.size // self.batch_size + (rest >= self.ranks)

    @property
    def smallest(self) -> int:
        """Data in the smallest batch of a pass, the last, of all ranks together."""
        rest = 0 if self.drop_last else self.size % self.batch_size
        return rest - rest % self.ranks or self.batch_size

    def epoch(self, number: int, start: int = 0, *, stride: int = 1) -> Iterator[Any]:
        """Yield the batches of a pass, each of shape (batch, *item_shape), as float32.

        Where something belongs to the data, such as labels, a batch is a tuple (x, *others).

        Args:
            number: of the pass.
            start: the first batch; what is before it is not read.
            stride: yield every how manyth batch.
        """
        order = self._order(number)
        chosen = range(start, len(self), stride)
        preprocess = PREPROCESSING[self.preprocessing]
        parts = self._read(self._share(order, batch) for batch in chosen)
        for batch, (data, *others) in zip(chosen, parts, strict=True):
            noise = torch.Generator(self.device)
            noise.manual_seed(seed_of(self.seed, number, batch, self.rank))
            x = preprocess(unpacked(data, self.item_shape) if self._bits else data, noise)
            yield (x, *others) if others else x

    def whole(self) -> "Batches":
        """Return the batches of which these are a rank's share."""
        if self.ranks == 1:
            return self
        whole = copy.copy(self)
        whole.rank, whole.ranks = 0, 1
        return whole

    def to(self, device: str | torch.device) -> "Batches":
        """Return the same batches on another device; itself if they are there."""
        device = torch.device(device)
        if device == self.device:
            return self
        moved = copy.copy(self)
        moved.device = device
        moved._others = tuple(other.to(device) for other in self._others)
        if isinstance(self._data, Tensor):
            moved._data = self._data.to(device)
        else:
            moved._data = self._data.pinned(device.type == "cuda")
        return moved

    def _order(self, number: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(self.size)
        # Two passes of one seed, or one pass of two seeds, must not share a generator's state.
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + number) * 2)
        return torch.randperm(self.size, generator=generator)

    def _share(self, order: Tensor, batch: int) -> Tensor:
        whole = order[batch * self.batch_size : (batch + 1) * self.batch_size]
        size = len(whole) // self.ranks
        return whole[self.rank * size : (self.rank + 1) * size]

    def _read(self, shares: Iterable[Tensor]) -> Iterator[list[Tensor]]:
        if isinstance(self._data, Tensor):
            for share in shares:
                rows = share.to(self.device)
                yield [self._data[rows], *(other[rows] for other in self._others)]
            return
        for parts in self._data.batches(share.tolist() for share in shares):
            yield [part.to(self.device, non_blocking=True) for part in parts]


def own_batches(batches: Iterable[Any] | Batches) -> Iterable[Any]:
    """Return this rank's share of whole batches, every count-th from its own on.

    Args:
        batches: all of them; of ``Batches``, the first pass, of which others' are not read.
    """
    here = present_ranks()
    if isinstance(batches, Sequence):
        return batches[here.index :: here.count]  # which still knows its length
    if not isinstance(batches, Batches):
        return islice(batches, here.index, None, here.count)
    return batches.epoch(0, here.index, stride=here.count)


class _BinaryOnce(Dataset[Any]):
    """Images that are read as needed, binarised, each by its own index."""

    def __init__(self, split: Dataset[Any]) -> None:
        self.split = split

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        item = self.split[index]
        others = () if isinstance(item, Tensor) else item[1:]
        return binarised_bits(first_of(item)[None], index)[0], *others


def _check_others(split: object, others: Sequence[Tensor]) -> None:
    """Refuse what belongs to data, if it does not belong to every one of them."""
    if not isinstance(split, Tensor):
        raise TypeError(
            "a tuple of data and what belongs to them must be of tensors, got "
            f"{type(split).__name__} first; give a data set whose items are tuples"
        )
    if any(len(other) != len(split) for other in others):
        raise DataError(
            "what belongs to data must have an entry for each datum, got "
            f"{[len(other) for other in others]} for {len(split)} data; cut them alike"
        )


def _checked_share(batch_size: int, rank: int, ranks: int) -> tuple[int, int]:
    if not 0 <= rank < check_positive_int("ranks", ranks):
        raise DataError(f"rank must be one of 0 to {ranks - 1}, got {rank}")
    if batch_size % ranks:
        raise DataError(
            f"batch_size must be a multiple of the number of ranks, got {batch_size} for {ranks}; "
            f"use --batch-size {batch_size - batch_size % ranks + ranks}"
        )
    return rank, ranks
