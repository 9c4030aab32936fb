"""A data set: training and held-out data of one shape, in memory or read as they are needed."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from pyro_dpvae.data.labels import varying
from pyro_dpvae.data.meaning import Meaning, meaning_of
from pyro_dpvae.errors import DataError

__all__ = [
    "LARGEST_IN_MEMORY",
    "DataSet",
    "Split",
    "first_of",
    "fits_in_memory",
    "split_shape",
    "split_size",
]

Split = Tensor | Dataset[Any]
"""Images as uint8 levels or float32 shades in [0, 1], of shape (count, channels, height, width),
sequences as float32 (count, steps, features), vectors as float32 (count, size), or a map-style
dataset of such items that are read as they are needed."""

_FEW = 16
_AT_ONCE = 1 << 12  # items whose bytes are looked at together

LARGEST_IN_MEMORY = 1 << 30
"""Bytes of the largest split that is held: memory is the user's too."""


@dataclass(frozen=True)
class DataSet:
    """Training and held-out data.

    Tensors of other types and layouts become items as :func:`pyro_dpvae.data.meaning_of` says.

    Args:
        name: for messages and run folders.
        train: the data to train on.
        test: the held-out data.
        train_labels: a class per datum, where known.
        test_labels: likewise.
        test_factors: the factors of variation of each held-out datum, of shape (count, factors),
            where known. Those with one value are left out, with a warning.
        valid: what training watches in the place of ``test``, where there is such a split.
        label_names: what the classes are called, by number.
        factor_names: what the factors are called.
        columns: what the numbers of a vector are called.
        places: where each datum was in the file, of train and then of test, if the held-out data
            were chosen at random.
        meaning: what the numbers mean, if tensors are items already; None decides.
        notes: what a user should know of how the data were read.

    Raises:
        ValueError: if a split is empty, has another shape, or holds what is not finite, or if
            labels are not of every datum.

    Example:
        >>> import torch
        >>> DataSet("dots", torch.zeros(8, 2), torch.zeros(2, 2)).item_shape
        (2,)
    """

    name: str
    train: Split
    test: Split
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
    test_factors: Tensor | None = None
    valid: Split | None = None
    label_names: tuple[str, ...] | None = None
    factor_names: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    places: Tensor | None = None
    meaning: Meaning | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        splits = self.splits
        for part, split in splits.items():
            if split_size(split) == 0:
                raise DataError(
                    f"a data set needs data, got none in the {part} split of {self.name!r}"
                )
        for part, labels, split in (
            ("train_labels", self.train_labels, self.train),
            ("test_labels", self.test_labels, self.test),
            ("test_factors", self.test_factors, self.test),
        ):
            if labels is not None and len(labels) != split_size(split):
                raise DataError(
                    f"{part} must be of every datum, got {len(labels)} for {split_size(split)} "
                    f"data of {self.name!r}"
                )
        shapes = {part: split_shape(split) for part, split in splits.items()}
        if len(set(shapes.values())) > 1:
            raise DataError(
                f"training and held-out data of {self.name!r} must have one shape, got {shapes}"
            )
        tensors = {part: split for part, split in splits.items() if isinstance(split, Tensor)}
        if tensors and self.meaning is None:
            meaning = meaning_of(tensors, where=repr(self.name))
            for part, split in tensors.items():
                object.__setattr__(self, part, meaning.items(split))
            object.__setattr__(self, "meaning", meaning)
        if self.meaning is None:
            object.__setattr__(self, "meaning", getattr(self.train, "meaning", None))
        for split in self.splits.values():
            if isinstance(split, Tensor):  # as other splits do, it knows what it means
                vars(split)["meaning"] = self.meaning
        if self.test_factors is not None:
            factors, names = varying(self.test_factors, self.factor_names, repr(self.name))
            object.__setattr__(self, "test_factors", factors)
            object.__setattr__(self, "factor_names", names)

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by name: train, valid where there is one, test."""
        every = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: split for name, split in every.items() if split is not None}

    @property
    def held_out(self) -> Tensor | None:
        """Where the held-out data were in the file, if they were chosen at random."""
        return None if self.places is None else self.places[split_size(self.train) :]

    @property
    def watched(self) -> Split:
        """The split that training watches: valid where there is one, test otherwise."""
        return self.test if self.valid is None else self.valid

    @property
    def item_shape(self) -> tuple[int, ...]:
        """The shape of a datum: (channels, height, width), (steps, features) or (size,)."""
        return split_shape(self.train)

    @cached_property
    def digest(self) -> str:
        """A name of the data themselves; of data read as needed, of their number and a few."""
        digest = hashlib.sha256()
        for split in (self.train, self.test, *(() if self.valid is None else (self.valid,))):
            if isinstance(split, Tensor):
                for rows in split.split(_AT_ONCE):
                    digest.update(rows.numpy().tobytes())
                continue
            size = split_size(split)
            digest.update(f"{size}".encode())
            for index in range(0, size, -(-size // _FEW)):
                digest.update(split[index].numpy().tobytes())
        return digest.hexdigest()[:12]

    @property
    def is_images(self) -> bool:
        """Whether the data are images, rather than sequences or vectors."""
        return len(self.item_shape) == 3

    @property
    def decision(self) -> str:
        """What the numbers were taken for, in one line."""
        what = str(self.meaning) if self.meaning else f"items of shape {self.item_shape}"
        return "; ".join([what, *self.notes])


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
    item = first_of(split[0])
    if not isinstance(item, Tensor):
        raise TypeError(
            "every item of a data set must be a tensor, or a tuple of the datum and what belongs "
            f"to it, such as a label; got {type(item).__name__} from {type(split).__name__}; "
            "return tensors"
        )
    return tuple(item.shape)


def as_arguments(batch: Any) -> tuple[Tensor, ...]:
    """Return the arguments that a batch is to a model: itself, or what it is a tuple of."""
    return tuple(batch) if isinstance(batch, tuple | list) else (batch,)


def first_of(item: Any) -> Any:
    """Return the datum of an item that is a tuple, and any other item itself."""
    return item[0] if isinstance(item, tuple | list) and item else item
