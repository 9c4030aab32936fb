"""A data set: training and held-out data of one shape, in memory or read as needed."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
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
data set of such items, which are read as needed."""

_FEW = 16
_AT_ONCE = 1 << 12  # items hashed together

LARGEST_IN_MEMORY = 1 << 30
"""The largest size, in bytes, of a split that is kept in memory."""


@dataclass(frozen=True)
class DataSet:
    """Training and held-out data.

    :func:`pyro_dpvae.data.meaning_of` converts tensors of other types and layouts into items.

    Args:
        name: name of the data set, for messages and run folders.
        train: the training data.
        test: the held-out data.
        train_labels: the class of each training item, if known.
        test_labels: the class of each held-out item, if known.
        train_factors: the factors of variation of each training item, of shape (count, factors),
            if known. Factors that are constant over the held-out items are dropped with a warning.
        test_factors: the same of each held-out item.
        valid: the split to evaluate during training instead of ``test``, if there is one.
        valid_labels: the class of each of its items, if known.
        label_names: names of the classes.
        factor_names: names of the factors.
        columns: names of the entries of a vector.
        names: by split, the name of each item if items have names, such as the paths of files.
        places: the row of each item in the file, of train and then of test, if the held-out data
            were chosen at random.
        units: what was subtracted from each column, and what it was divided by then, if columns
            are standardised.
        meaning: how numbers are interpreted, if the tensors are items already; None decides.
        notes: remarks for the user on how the data were read.

    Raises:
        ValueError: if a split is empty, has another shape or values that are not finite, or if
            there is not one label per item.

    Example:
        >>> import torch
        >>> DataSet("dots", torch.zeros(8, 2), torch.zeros(2, 2))
        DataSet('dots', train=8, test=2, item_shape=(2,))
    """

    name: str
    train: Split
    test: Split
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
    train_factors: Tensor | None = None
    test_factors: Tensor | None = None
    valid: Split | None = None
    valid_labels: Tensor | None = None
    label_names: tuple[str, ...] | None = None
    factor_names: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    places: Tensor | None = None
    units: tuple[Tensor, Tensor] | None = None
    meaning: Meaning | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        sizes = ", ".join(f"{part}={split_size(split)}" for part, split in self.splits.items())
        return f"DataSet({self.name!r}, {sizes}, item_shape={self.item_shape})"

    def __post_init__(self) -> None:
        splits = self.splits
        for part, split in splits.items():
            if split_size(split) == 0:
                raise DataError(
                    f"a data set needs data, got none in the {part} split of {self.name!r}"
                )
        labelled = ("train_labels", "valid_labels", "test_labels")
        for part in (*labelled, "train_factors", "test_factors"):
            labels = getattr(self, part)
            rows = splits.get(part.partition("_")[0])
            size = 0 if rows is None else split_size(rows)
            if labels is not None and len(labels) != size:
                raise DataError(
                    f"{part} must have one entry per item: got {len(labels)} for "
                    f"{size} items of {self.name!r}"
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
            if isinstance(split, Tensor):  # remembered like the meaning of other splits
                vars(split)["meaning"] = self.meaning
        if self.test_factors is not None:
            kept = varying(self.test_factors, self.factor_names, repr(self.name))
            for part in ("train_factors", "test_factors"):
                if (factors := getattr(self, part)) is not None:
                    object.__setattr__(self, part, factors[:, kept] if kept else None)
            if self.factor_names is not None:
                names = tuple(self.factor_names[column] for column in kept)
                object.__setattr__(self, "factor_names", names or None)

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by name: train, valid where there is one, test."""
        every = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: split for name, split in every.items() if split is not None}

    @property
    def held_out(self) -> Tensor | None:
        """The rows of the held-out data in the file, if they were chosen at random."""
        return None if self.places is None else self.places[split_size(self.train) :]

    @property
    def watched(self) -> Split:
        """The split that is evaluated during training: valid if there is one, otherwise test."""
        return self.test if self.valid is None else self.valid

    @property
    def item_shape(self) -> tuple[int, ...]:
        """The shape of an item: (channels, height, width), (steps, features) or (size,)."""
        return split_shape(self.train)

    @cached_property
    def digest(self) -> str:
        """A hash of the data; for data read as needed, of their number and a few items."""
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
        """True for images, False for sequences and vectors."""
        return len(self.item_shape) == 3

    @property
    def decision(self) -> str:
        """How the numbers were interpreted, in one line."""
        what = str(self.meaning) if self.meaning else f"items of shape {self.item_shape}"
        return "; ".join([what, *self.notes])


def fits_in_memory(nbytes: int) -> bool:
    """Return True if data of this size are kept in memory, False to read them as needed."""
    return nbytes <= LARGEST_IN_MEMORY


def split_size(split: Split) -> int:
    """Return the number of items of a split."""
    return len(split)  # type: ignore[arg-type]  # map-style data sets have a length, untyped


def split_shape(split: Split) -> tuple[int, ...]:
    """Return the shape of an item of a split.

    Raises:
        TypeError: if the split is neither a tensor nor a map-style data set of tensors.
    """
    if isinstance(split, Tensor):
        return tuple(split.shape[1:])
    if not hasattr(split, "__getitem__"):
        raise TypeError(
            "a split must be a tensor or a map-style data set (with __getitem__), got "
            f"{type(split).__name__}; of a DataLoader pass its dataset"
        )
    item = first_of(split[0])
    if not isinstance(item, Tensor):
        raise TypeError(
            "every item of a data set must be a tensor, or a tuple of data and further values "
            f"such as a label, got {type(item).__name__} from {type(split).__name__}; return "
            "tensors"
        )
    return tuple(item.shape)


def as_arguments(batch: Any) -> tuple[Tensor, ...]:
    """Return the arguments of model and guide in a batch: its entries if it is a tuple."""
    return tuple(batch) if isinstance(batch, tuple | list) else (batch,)


def first_of(item: Any) -> Any:
    """Return the first entry of an item that is a tuple, or the item itself."""
    return item[0] if isinstance(item, tuple | list) and item else item
