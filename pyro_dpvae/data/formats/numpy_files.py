"""NumPy's .npy and .npz files."""

import struct
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from pyro_dpvae.data.dataset import fits_in_memory
from pyro_dpvae.data.meaning import Rows
from pyro_dpvae.data.names import by_name
from pyro_dpvae.data.sources import MappedRows, Part, Source
from pyro_dpvae.errors import DataError

__all__ = ["read_npy", "read_npz"]

# Errors of numpy and zipfile for damaged files: truncated headers, sizes beyond the memory,
# unknown compression, passwords.
_UNREADABLE = (
    *(ValueError, OSError, EOFError, KeyError, SyntaxError, TokenError),
    *(MemoryError, OverflowError, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error),
)


def read_npy(path: Path) -> Source:
    """Return the array of a .npy file, memory-mapped if it is large."""
    if zipfile.is_zipfile(path):
        return read_npz(path)
    try:
        with path.open("rb") as file:
            if fits_in_memory(path.stat().st_size):
                array: Rows = np.lib.format.read_array(file, allow_pickle=False)
            else:
                array = _mapped(path, file)
    except _UNREADABLE as error:
        raise _refusal(path) from error
    return Source(path.stem, {"train": Part(array)}, str(path))


def read_npz(path: Path, labels: str | None = None) -> Source:
    """Return the arrays of a .npz file; large uncompressed ones are memory-mapped.

    Compressed arrays are always loaded, since they can only be read from their beginning. Arrays
    of objects are ignored, since only unpickling could read them.

    Args:
        path: the file.
        labels: as for :func:`by_name`.
    """
    arrays: dict[str, Rows] = {}
    objects: list[str] = []
    try:
        if not zipfile.is_zipfile(path):
            return read_npy(path)
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name == member.filename:
                    continue
                with archive.open(member) as content:
                    if _header(content)[2].hasobject:
                        objects.append(name)
                        continue
                if member.compress_type == zipfile.ZIP_STORED and not fits_in_memory(
                    member.file_size
                ):
                    # The lengths of name and extra field in the member's own header.
                    file.seek(member.header_offset + 26)
                    lengths = np.frombuffer(file.read(4), "<u2")
                    file.seek(int(lengths.sum()), 1)
                    arrays[name] = _mapped(path, file)
                else:
                    with archive.open(member) as content:
                        arrays[name] = np.lib.format.read_array(content, allow_pickle=False)
    except _UNREADABLE as error:
        raise _refusal(path) from error
    if not arrays and objects:
        raise _refusal(path)
    return by_name(arrays, path.stem, str(path), objects=objects, labels=labels)


def _header(file: Any) -> tuple[tuple[int, ...], bool, "np.dtype[Any]"]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise DataError(f"version {version} of the format")


def _mapped(path: Path, file: Any) -> MappedRows:
    shape, fortran, dtype = _header(file)
    if dtype.hasobject:
        raise DataError("an array of objects")
    return MappedRows(path, dtype, file.tell(), shape, "F" if fortran else "C")


def _refusal(path: Path) -> DataError:
    return DataError(
        f"{path} cannot be read as a .npy or .npz file of numbers; arrays of objects are not "
        "unpickled"
    )
