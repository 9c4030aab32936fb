"""Rows of arrays in files, read as needed."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from pyro_dpvae.data.meaning import Array, Meaning, Rows

__all__ = ["HDF5Rows", "Items", "MappedRows"]


@dataclass(frozen=True)
class MappedRows:
    """The rows of a memory-mapped array in a file.

    Pickle only the file offset for worker processes; the data stay memory-mapped.

    Args:
        path: the file.
        dtype: type of a number.
        offset: position of the array in the file, in bytes.
        shape: shape of the whole array.
        order: memory order, "C" or "F".
    """

    path: Path
    dtype: "np.dtype[Any]"
    offset: int
    shape: tuple[int, ...]
    order: Any = "C"

    def __post_init__(self) -> None:
        object.__setattr__(self, "_array", self._mapped())

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Array:
        return np.asarray(self._array[rows])  # type: ignore[attr-defined]

    def __reduce__(self) -> Any:
        return MappedRows, (self.path, self.dtype, self.offset, self.shape, self.order)

    def _mapped(self) -> "np.memmap[Any, Any]":
        return np.memmap(self.path, self.dtype, "r", self.offset, self.shape, self.order)


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
        return np.asarray(self._dataset()[rows])

    def __reduce__(self) -> Any:
        return HDF5Rows, (self.path, self.name)

    def _dataset(self) -> Any:
        # A forked process must not use the open file of its parent.
        if self._opened is None or self._opened[0] != os.getpid():
            import h5py

            self._opened = os.getpid(), h5py.File(self.path, "r")[self.name]
        return self._opened[1]


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
