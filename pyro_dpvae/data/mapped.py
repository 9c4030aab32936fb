"""Arrays in files that are read as they are needed."""

import zipfile
from pathlib import Path
from typing import Any, final

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from pyro_dpvae.data.dataset import fits_in_memory
from pyro_dpvae.data.forms import Array, Form

__all__ = ["MappedData", "read_archive", "read_array"]


@final
class MappedData(Dataset[Tensor]):
    """The rows of a memory-mapped array as data.

    Args:
        array: a row per datum.
        form: what its numbers mean.
    """

    def __init__(self, array: "np.memmap[Any, Any]", form: Form) -> None:
        self.array, self.form = array, form

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: int) -> Tensor:
        row = range(len(self))[index]
        return self.form.data(np.asarray(self.array[row : row + 1]))[0]

    def __reduce__(self) -> Any:
        # To a process that reads goes the place in the file, not what is there.
        array = self.array
        order = "C" if array.flags.c_contiguous else "F"
        return _reopened, (
            (array.filename, array.dtype, array.offset, array.shape, order),
            self.form,
        )


def read_array(path: Path) -> Array:
    """Return the array of a .npy file, memory-mapped if it is too large to be held."""
    if not fits_in_memory(path.stat().st_size):
        return np.lib.format.open_memmap(path, mode="r")
    with path.open("rb") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def read_archive(path: Path) -> dict[str, Array]:
    """Return the arrays of a .npz file; those too large to be held are memory-mapped.

    Compressed ones are held at any size: they can only be read from their beginning.
    """
    arrays = {}
    with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
        members = zipfile.ZipFile(file).NameToInfo
        for name in content.files:
            member = members.get(f"{name}.npy")
            if member is not None and _is_mappable(member):
                arrays[name] = _mapped_member(path, member)
            elif isinstance(array := content[name], np.ndarray):
                arrays[name] = array
    return arrays


def _is_mappable(member: zipfile.ZipInfo) -> bool:
    return member.compress_type == zipfile.ZIP_STORED and not fits_in_memory(member.file_size)


def _mapped_member(path: Path, member: zipfile.ZipInfo) -> Array:
    with path.open("rb") as file:
        # The lengths of name and extra field in the member's own header, behind which it lies.
        file.seek(member.header_offset + 26)
        lengths = np.frombuffer(file.read(4), "<u2")
        file.seek(int(lengths.sum()), 1)
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(file)
        if dtype.hasobject:
            raise ValueError("an array of objects")
        return _mapped(path, dtype, file.tell(), shape, "F" if fortran else "C")


def _mapped(
    path: Path, dtype: "np.dtype[Any]", offset: int, shape: tuple[int, ...], order: Any
) -> "np.memmap[Any, Any]":
    return np.memmap(path, dtype, "r", offset, shape, order)


def _reopened(place: tuple[Any, ...], form: Form) -> MappedData:
    return MappedData(_mapped(*place), form)
