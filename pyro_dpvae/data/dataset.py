"""A data set: training and held-out data of one shape, in memory or read as they are needed."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["DataSet", "Split", "split_shape", "split_size"]

Split = Tensor | Dataset[Any]
"""Images as uint8 (count, channels, height, width), vectors as float32 (count, size), or a
map-style dataset of uint8 images (channels, height, width) too large for memory."""


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
        ValueError: if a split is empty, has another shape, or holds what is not finite.

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
        if split_shape(self.train) != split_shape(self.test):
            raise ValueError(
                f"training and held-out data of {self.name!r} must have one shape, "
                f"got {split_shape(self.train)} and {split_shape(self.test)}"
            )

    @property
    def item_shape(self) -> tuple[int, ...]:
        """The shape of a datum, (channels, height, width) or (size,)."""
        return split_shape(self.train)

    @property
    def is_images(self) -> bool:
        """Whether the data are images, of 8-bit pixels, rather than vectors."""
        return len(self.item_shape) == 3


def split_size(split: Split) -> int:
    """Return how many data a split has."""
    return len(split)  # type: ignore[arg-type]  # map-style data sets have a length, untyped


def split_shape(split: Split) -> tuple[int, ...]:
    """Return the shape of a datum of a split."""
    return tuple(split.shape[1:]) if isinstance(split, Tensor) else tuple(split[0].shape)


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
