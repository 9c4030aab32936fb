"""Batches of preprocessed data, in an order that depends only on seed and epoch."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae._randomness import seed_of
from pyro_dpvae._ranks import ranks as present_ranks
from pyro_dpvae.data.dataset import Split, first_of, split_shape, split_size
from pyro_dpvae.data.meaning import Meaning, meaning_of
from pyro_dpvae.data.preprocessing import (
    PREPROCESSING,
    binarised_bits,
    check_preprocessing,
    unpacked,
)
from pyro_dpvae.data.streams import Stream
from pyro_dpvae.errors import DataError

__all__ = ["Batches", "as_items", "own_batches"]

_FEW = 16  # items inspected before the others are read


def as_items(data: Split, *, as_given: bool = False) -> tuple[Meaning, Split]:
    """Return the meaning of a tensor or map-style data set, and its items.

    The decision of a ``DataSet`` is kept. For a user's data set a few evenly spaced items decide,
    and an item that contradicts them raises an error when it is read. In items that are tuples the
    first entry is the data; others, such as labels, become tensors.

    Args:
        data: the tensor or the data set.
        as_given: leave images of real numbers unchanged.

    Raises:
        TypeError: if items are not tensors.
        ValueError: if their numbers cannot be interpreted.
    """
    known = getattr(data, "meaning", None)
    if isinstance(known, Meaning):
        return known, data
    if isinstance(data, Tensor):
        meaning = meaning_of({"split": data}, as_given=as_given)
        return meaning, meaning.items(data)
    split_shape(data)  # raises if items are wrong
    size = split_size(data)
    few = torch.stack([first_of(data[index]) for index in range(0, size, -(-size // _FEW))])
    where = f"a {type(data).__name__}"
    meaning = meaning_of({"items": few}, as_given=as_given, where=where)
    return meaning, _Interpreted(data, meaning, few.dtype)


@final
class _Interpreted(Dataset[Any]):
    def __init__(self, data: Dataset[Any], meaning: Meaning, dtype: torch.dtype) -> None:
        self.data, self.meaning, self.dtype = data, meaning, dtype

    def __len__(self) -> int:
        return split_size(self.data)

    def __getitem__(self, index: int) -> Tensor | tuple[Tensor, ...]:
        whole = self.data[index]
        item = first_of(whole)
        if item.dtype != self.dtype:
            raise DataError(
                f"all items must have one type, got {item.dtype} for item {index} and "
                f"{self.dtype} for earlier ones"
            )
        low, high = (float(bound) for bound in item.double().aminmax())
        images = self.meaning.layout == "images" and self.meaning.is_shades
        white = 255 if self.meaning.pixels else 1
        if images and (low < 0 or high * self.meaning.scale > white):
            raise DataError(
                f"all items must have one range: item {index} lies in [{low:g}, {high:g}], but "
                f"others are {self.meaning.words}; scale all items alike"
            )
        x = self.meaning.items(item[None])[0]
        return x if whole is item else (x, *map(torch.as_tensor, whole[1:]))


@final
class Batches:
    """Batches of one split of a data set, or one rank's shard of each batch.

    :func:`pyro_dpvae.data.meaning_of` decides how numbers are interpreted, and ``meaning`` holds
    its decision. Data in memory are kept on the device, 8-bit images as uint8; other data are read
    ahead by worker processes. The order of an epoch depends on the seed and the epoch; the noise
    of preprocessing also depends on batch and rank. Neither depends on the random state of the
    process, on how data are read, or on earlier batches.

    Batch b of an epoch has the same items for any number of ranks, and each rank gets an equal
    shard. If the last batch does not divide by the number of ranks, the remaining items are
    dropped.

    Args:
        split: a split of a ``DataSet``, any tensor that ``meaning_of`` accepts, or a map-style
            data set of tensors. In a tuple of tensors, or a data set of tuples, the data come
            first, followed by further values per item, such as labels.
        batch_size: number of items in a batch, over all ranks; the last batch may be smaller.
        preprocessing: one of ``PREPROCESSING``; ``"none"`` leaves real numbers unchanged.
        device: device of the batches.
        seed: random seed of order and noise.
        shuffle: shuffle each epoch; otherwise keep the order of the split.
        rank: index of this rank, from 0.
        ranks: number of ranks.
        drop_last: drop a smaller last batch.
        workers: number of processes that read data that are not in memory; 0 reads in this one.

    Raises:
        ValueError: if the batch is larger than the split or not a multiple of ``ranks``, or the
            preprocessing does not suit the data.

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
                f"batch_size must be at most the number of items, got {batch_size} for "
                f"{self.size} items; use a smaller batch_size"
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
        """The number of items in the smallest (last) batch of an epoch, over all ranks."""
        rest = 0 if self.drop_last else self.size % self.batch_size
        return rest - rest % self.ranks or self.batch_size

    def epoch(self, number: int, start: int = 0, *, stride: int = 1) -> Iterator[Any]:
        """Yield the float32 batches of an epoch, each of shape (batch, *item_shape).

        If items have further values, such as labels, a batch is a tuple (x, *others).

        Args:
            number: number of the epoch.
            start: index of the first batch; earlier ones are not read.
            stride: yield every stride-th batch.
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
        """Return the batches of all ranks together."""
        if self.ranks == 1:
            return self
        whole = copy.copy(self)
        whole.rank, whole.ranks = 0, 1
        return whole

    def to(self, device: str | torch.device) -> "Batches":
        """Return these batches on another device."""
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
        # Two epochs of one seed, or one epoch of two seeds, must not share a generator's state.
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
    """Return this rank's share of the batches: every count-th one, starting at its index.

    Args:
        batches: all batches, on every rank; of ``Batches``, the first epoch, where only this
            rank's share is read.
    """
    here = present_ranks()
    if isinstance(batches, Sequence):
        return batches[here.index :: here.count]  # keeps the length
    if not isinstance(batches, Batches):
        return islice(batches, here.index, None, here.count)
    return batches.epoch(0, here.index, stride=here.count)


class _BinaryOnce(Dataset[Any]):
    """Binarise images as they are read; the item's index seeds the draw."""

    def __init__(self, split: Dataset[Any]) -> None:
        self.split = split

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        item = self.split[index]
        others = () if isinstance(item, Tensor) else item[1:]
        return binarised_bits(first_of(item)[None], index)[0], *others


def _check_others(split: object, others: Sequence[Tensor]) -> None:
    """Raise unless data and further values are tensors with one entry per item."""
    if not isinstance(split, Tensor):
        raise TypeError(
            "a tuple of data and further values, such as labels, must hold tensors, got "
            f"{type(split).__name__} first; pass a data set whose items are tuples"
        )
    if any(len(other) != len(split) for other in others):
        raise DataError(
            "labels and other values must have one entry per item, got "
            f"{[len(other) for other in others]} for {len(split)} items; make them equally long"
        )


def _checked_share(batch_size: int, rank: int, ranks: int) -> tuple[int, int]:
    if not 0 <= rank < check_positive_int("ranks", ranks):
        raise DataError(f"rank must be one of 0 to {ranks - 1}, got {rank}")
    if batch_size % ranks:
        raise DataError(
            f"batch_size must be a multiple of the number of ranks, got {batch_size} for {ranks} "
            f"ranks; use batch_size={batch_size - batch_size % ranks + ranks}"
        )
    return rank, ranks
