"""Sources: the content of files, its rows, and its conversion to a data set with splits."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyro_dpvae.data.dataset import DataSet, Split, split_size
from pyro_dpvae.data.labels import class_numbers, factor_numbers, warn
from pyro_dpvae.data.meaning import Array, Meaning, Rows, in_memory, meaning_of
from pyro_dpvae.data.preprocessing import standardise, units_of
from pyro_dpvae.errors import DataError

__all__ = [
    "HDF5Rows",
    "Items",
    "MappedRows",
    "Part",
    "Source",
    "check_held_out",
    "data_set",
    "library",
]


def library(name: str, path: Path) -> Any:
    """Return a library that reads or writes a file.

    Raises:
        ImportError: if it is not installed, with the extra that installs it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"a library is missing: the file {path} needs {name.partition('.')[0]}; install "
            "pyro-dpvae[formats]"
        ) from error


@final
class MappedRows(np.memmap[Any, Any]):
    """The rows of a memory-mapped array in a file.

    Pickle only the file offset for worker processes; the data stay memory-mapped.

    Args:
        path: the file.
        dtype: type of a number.
        offset: position of the array in the file, in bytes.
        shape: shape of the whole array.
        order: memory order, "C" or "F".
    """

    def __new__(cls, path: Path, dtype: Any, offset: int, shape: Any, order: Any = "C") -> Any:
        """Map the array; it has no constructor, like all of numpy's arrays."""
        return super().__new__(cls, path, dtype, "r", offset, shape, order)

    def __getitem__(self, rows: Any) -> Array:
        return np.asarray(super().__getitem__(rows))

    def __reduce__(self) -> Any:
        order = "F" if self.flags.fnc else "C"
        return MappedRows, (self.filename, self.dtype, self.offset, self.shape, order)


class HDF5Rows:
    """The rows of a dataset in an HDF5 file, which each process opens for itself.

    Args:
        path: the file.
        name: name of the dataset.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._opened: tuple[int, Any] | None = None
        import h5py

        with h5py.File(path, "r") as file:
            self.shape: tuple[int, ...] = tuple(file[name].shape)
            self.dtype: np.dtype[Any] = file[name].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Array:
        # A forked process must not use the open file of its parent.
        if self._opened is None or self._opened[0] != os.getpid():
            import h5py

            self._opened = os.getpid(), h5py.File(self.path, "r")[self.name]
        return np.asarray(self._opened[1][rows])

    def __reduce__(self) -> Any:
        return HDF5Rows, (self.path, self.name)


@final
class Items(Dataset[Tensor]):
    """Rows of an array in a file as items, read as needed.

    Args:
        rows: the array.
        meaning: the interpretation of its numbers.
        chosen: indices of the rows to use, in order; None uses all.
    """

    def __init__(self, rows: Rows, meaning: Meaning, chosen: Tensor | None = None) -> None:
        self.rows, self.meaning, self.chosen = rows, meaning, chosen

    def __len__(self) -> int:
        return len(self.rows) if self.chosen is None else len(self.chosen)

    def __getitem__(self, index: int) -> Tensor:
        row = range(len(self))[index] if self.chosen is None else int(self.chosen[index])
        return self.meaning.items(self.rows[row : row + 1])[0]

    def subset(self, chosen: Tensor) -> "Items":
        """Return the items with these indices."""
        return Items(
            self.rows, self.meaning, chosen if self.chosen is None else self.chosen[chosen]
        )


_HELD_OUT = 0.1
_SEED = 0
_BLOCK, _BLOCKS = 1 << 22, 16  # columns are moved in blocks: at least this size, at most so many


@dataclass
class Part:
    """One split of a file.

    Attributes:
        data: the rows of numbers.
        labels: labels, one per row, in any form.
        factors: factors of variation, in any form.
        names: names of the rows, such as the paths of files.
    """

    data: Rows
    labels: Array | None = None
    factors: Array | None = None
    names: Array | None = None


@dataclass
class Source:
    """The content of a file or folder, before its numbers are interpreted.

    Attributes:
        name: name of the data set.
        parts: the parts "train", "valid" and "test"; "train" alone has no split yet.
        where: name of the data in messages.
        layout: the layout according to the format or the names in the file, if known.
        columns: names of the entries of a vector.
        factor_names: names of the factors.
        notes: remarks for the user on how the file was read.
    """

    name: str
    parts: dict[str, Part]
    where: str
    layout: str | None = None
    columns: tuple[str, ...] | None = None
    factor_names: tuple[str, ...] | None = None
    notes: list[str] = field(default_factory=list)


def check_held_out(held_out: int | float | str | None) -> float | None:
    """Return the fraction of data to hold out; 0 for "none", None if it is not given.

    Raises:
        ValueError: if it is neither "none" nor a number between 0 and 1.
    """
    if held_out is None or held_out == "none":
        return None if held_out is None else 0.0
    try:
        share = float(held_out)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise DataError(f"held_out must be 'none' or a fraction between 0 and 1, got {held_out}")
    return share


def data_set(
    source: Source,
    *,
    layout: str | None = None,
    held_out: int | float | str | None = None,
    standardised: str | None = None,
) -> DataSet:
    """Make a data set of a source.

    "test" is the held-out split, and "valid" is evaluated during training; without "test", "valid"
    is the held-out split. Without both, a fixed random fraction is held out.

    Args:
        source: the source. Its arrays in memory are overwritten by the items.
        layout: kind of the items; None uses that of the source, or decides from the shape.
        held_out: the fraction to hold out if there are no splits; "none" uses the training data as
            held-out data. None holds out a tenth.
        standardised: columns that get mean 0 and standard deviation 1, as for :func:`load`.

    Raises:
        ValueError: if the numbers cannot be interpreted or standardised, or ``held_out`` is given
            and the source has splits.
    """
    share, parts, notes = check_held_out(held_out), dict(source.parts), list(source.notes)
    if len(parts) == 1:
        parts = {"train": next(iter(parts.values()))}
    elif share is not None:
        raise DataError(
            f"held_out applies to data without splits only, and {source.where} has "
            f"{' and '.join(parts)}; leave held_out out"
        )
    arrays = {split: part.data for split, part in parts.items()}
    meaning = meaning_of(arrays, layout=layout or source.layout, where=source.where)
    for caution in meaning.cautions:
        warn(caution)
    splits: dict[str, Split] = {
        split: meaning.items(part.data, owned=True)
        if in_memory(part.data)
        else Items(part.data, meaning)
        for split, part in parts.items()
    }
    labels, label_names = class_numbers(_given(parts, "labels"), source.where)
    factors, factor_names = factor_numbers(
        _given(parts, "factors"), source.factor_names, source.where
    )
    for what, found in (("labels", labels), ("factors", factors)):
        for split, values in found.items():
            if len(values) != split_size(splits[split]):
                raise DataError(
                    f"{what} must have one row per item, got {len(values)} for "
                    f"{split_size(splits[split])} items of {split!r} in {source.where}"
                )
    names = _given(parts, "names")
    tables: tuple[dict[str, Any], ...] = (splits, labels, factors, names)
    places = None
    if len(splits) == 1 and share == 0:
        notes.append("nothing is held out: held-out results are those of the training data")
        for table in tables:
            if "train" in table:
                table["test"] = table["train"]
    elif len(splits) == 1:
        share = _HELD_OUT if share is None else share
        train, test = _order(split_size(splits["train"]), share, source.where)
        places = torch.cat([train, test])
        notes.append(f"a random {100 * share:g} % is held out, the same each time")
        splits["train"], splits["test"] = _cut(splits["train"], train, test)
        for table in tables[1:]:
            if "train" in table:
                whole = table["train"]  # NumPy takes a tensor of one index for a number
                table["test"], table["train"] = whole[test.numpy()], whole[train.numpy()]
    elif "test" not in splits:
        notes.append("its own validation split is held out")
        for table in tables:
            if "valid" in table:
                table["test"] = table.pop("valid")
    units = None
    if standardised is not None:
        units = units_of(splits["train"], standardised, columns=source.columns, where=source.where)
        standardise(splits, units)
        notes.append(f"standardised columns: {standardised}")
    return DataSet(
        source.name,
        splits["train"],
        splits["test"],
        labels.get("train"),
        labels.get("test"),
        factors.get("train"),
        factors.get("test"),
        valid=splits.get("valid"),
        valid_labels=labels.get("valid"),
        label_names=label_names,
        factor_names=factor_names,
        columns=source.columns,
        names={split: tuple(map(str, of_split)) for split, of_split in names.items()},
        places=places,
        units=units,
        meaning=meaning,
        notes=tuple(notes),
    )


def _given(parts: Mapping[str, Part], what: str) -> dict[str, Array]:
    found = {split: getattr(part, what) for split, part in parts.items()}
    return {split: array for split, array in found.items() if array is not None}


def _order(size: int, share: float, where: str) -> tuple[Tensor, Tensor]:
    if size < 2:
        raise DataError(f"at least 2 items are needed to hold some out, got {size} in {where}")
    order = torch.randperm(size, generator=torch.Generator().manual_seed(_SEED))
    count = min(size - 1, max(1, round(share * size)))
    return order[count:], order[:count]


def _cut(data: Split, train: Tensor, test: Tensor) -> tuple[Split, Split]:
    if isinstance(data, Items):
        return data.subset(train), data.subset(test)
    assert isinstance(data, Tensor)
    order = torch.cat([test, train])
    rows = data.view(len(data), -1)
    # In place, some columns at a time, since a full copy would double the memory.
    width = max(_BLOCK // (len(data) * data.element_size()), rows.shape[1] // _BLOCKS, 1)
    for start in range(0, rows.shape[1], width):
        block = rows[:, start : start + width]
        block.copy_(block[order])
    return data[len(test) :], data[: len(test)]
