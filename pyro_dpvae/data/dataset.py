"""A data set: training and held-out data of one shape, in memory or read as they are needed."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["LARGEST_IN_MEMORY", "DataSet", "Split", "fits_in_memory", "split_shape", "split_size"]

Split = Tensor | Dataset[Any]
"""Images as uint8 (count, channels, height, width), vectors as float32 (count, size), or a
map-style dataset of uint8 images (channels, height, width) or float32 vectors (size,) that are
read as they are needed."""

_FEW = 16

LARGEST_IN_MEMORY = 1 << 30
"""Bytes of the largest split that is held: memory is the user's too."""


@dataclass(frozen=True)
class DataSet:
    """Training and held-out data.

    Args:
        name: for messages and run folders.
        train: the data to train on.
        test: the held-out data.
        train_labels: a class per datum, where known.
        test_labels: likewise.
        test_factors: the factors of variation of each held-out datum, of shape (count, factors),
            where known.

    Raises:
        ValueError: if a split is empty, has another shape, or holds what is not finite, or if
            labels are not of every datum.

    Example:
        >>> DataSet("dots", torch.zeros(8, 2), torch.zeros(2, 2)).item_shape
        (2,)
    """

    name: str
    train: Split
    test: Split
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
    test_factors: Tensor | None = None

    def __post_init__(self) -> None:
        for part, split in (("train", self.train), ("test", self.test)):
            where = f"the {part} split of {self.name!r}"
            if split_size(split) == 0:
                raise ValueError(f"a data set needs data, got none in {where}")
            if isinstance(split, Tensor):
                _check_tensor(split, where)
        for part, labels, split in (
            ("train_labels", self.train_labels, self.train),
            ("test_labels", self.test_labels, self.test),
            ("test_factors", self.test_factors, self.test),
        ):
            if labels is not None and len(labels) != split_size(split):
                raise ValueError(
                    f"{part} must be of every datum, got {len(labels)} for {split_size(split)} "
                    f"data of {self.name!r}"
                )
        if split_shape(self.train) != split_shape(self.test):
            raise ValueError(
                f"training and held-out data of {self.name!r} must have one shape, "
                f"got {split_shape(self.train)} and {split_shape(self.test)}"
            )

    @property
    def item_shape(self) -> tuple[int, ...]:
        """The shape of a datum, (channels, height, width) or (size,)."""
        return split_shape(self.train)

    @cached_property
    def digest(self) -> str:
        """A name of the data themselves; of data read as needed, of their number and a few."""
        digest = hashlib.sha256()
        for split in (self.train, self.test):
            if isinstance(split, Tensor):
                digest.update(split.numpy().tobytes())
                continue
            size = split_size(split)
            digest.update(f"{size}".encode())
            for index in range(0, size, -(-size // _FEW)):
                digest.update(split[index].numpy().tobytes())
        return digest.hexdigest()[:12]

    @property
    def is_images(self) -> bool:
        """Whether the data are images, of 8-bit pixels, rather than vectors."""
        return len(self.item_shape) == 3


def fits_in_memory(nbytes: int) -> bool:
    """Return whether data are held, rather than read as they are needed."""
    return nbytes <= LARGEST_IN_MEMORY


def split_size(split: Split) -> int:
    """Return how many data a split has."""
    return len(split)  # type: ignore[arg-type]  # map-style data sets have a length, untyped


def split_shape(split: Split) -> tuple[int, ...]:
    """Return the shape of a datum of a split.

    Raises:
        TypeError: if it is neither a tensor nor a map-style data set of tensors.
    """
    if isinstance(split, Tensor):
        return tuple(split.shape[1:])
    if not hasattr(split, "__getitem__"):
        raise TypeError(
            "a split must be a tensor or a map-style data set, whose items have numbers; got "
            f"{type(split).__name__}; of a DataLoader give its dataset"
        )
    item = split[0]
    if not isinstance(item, Tensor):
        raise TypeError(
            "every item of a data set must be one tensor, without a label; got "
            f"{type(item).__name__} from {type(split).__name__}; return the data alone"
        )
    return tuple(item.shape)


def _check_tensor(data: Tensor, where: str) -> None:
    kind = (data.dtype, data.dim())
    if kind not in ((torch.uint8, 4), (torch.float32, 2)):
        raise ValueError(
            "data must be uint8 images (count, channels, height, width) or float32 vectors "
            f"(count, size), got {data.dtype} of shape {tuple(data.shape)} in {where}"
        )
    bad = int((~data.isfinite()).sum()) if data.is_floating_point() else 0
    if bad:
        raise ValueError(
            f"data must be finite, got {bad} values of {data.numel()} that are NaN or infinite "
            f"in {where}; repair or leave out those data"
        )
