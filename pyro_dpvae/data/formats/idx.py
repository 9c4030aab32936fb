"""idx files, the format of MNIST, Fashion-MNIST and EMNIST, gzipped or not."""

import gzip
import re
import zlib
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from pyro_dpvae.data.dataset import fits_in_memory
from pyro_dpvae.data.meaning import Array, Rows
from pyro_dpvae.data.rows import MappedRows
from pyro_dpvae.data.sources import Part, Source
from pyro_dpvae.errors import DataError

__all__ = ["is_idx", "read_idx"]

_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_UNREADABLE = (ValueError, OSError, EOFError, IndexError, MemoryError, OverflowError, zlib.error)
# The part of file names after the split, for images and labels.
_IMAGES, _LABELS = re.compile("images?([-.])idx3"), r"labels\1idx1"
_OTHERS = {"train": "train", "valid": "valid", "test": "test", "t10k": "test"}


def is_idx(path: Path) -> bool:
    """Return True if a file has the name of an idx file."""
    return re.search(r"[-.]idx\d?([-.]ubyte)?(\.gz)?$", path.name.lower()) is not None


def read_idx(path: Path) -> Source:
    """Return the data of an idx file with the labels and other splits in the same folder.

    The labels' file has ``labels-idx1`` instead of ``images-idx3`` in its name. The files of
    splits have ``train``, ``valid``, ``test`` or ``t10k`` in their names.
    """
    parts = {"train": _part(path)}
    if "train" in path.name:
        for word, split in _OTHERS.items():
            other = _beside(path.with_name(path.name.replace("train", word)))
            if other is not None and split != "train":
                parts[split] = _part(other)
    name = re.split(r"[-_.]?train|[-.]idx", path.name)[0]
    source = Source(name or path.parent.name or "idx", parts, str(path))
    if "emnist" in path.name.lower():
        source.notes.append("images are transposed, as in the files of EMNIST")
    return source


def _part(path: Path) -> Part:
    labels = None
    if _IMAGES.search(path.name):
        labels = _beside(path.with_name(_IMAGES.sub(_LABELS, path.name)))
    return Part(_array(path), None if labels is None else np.asarray(_array(labels)[:]))


def _beside(path: Path) -> Path | None:
    """Return the path of a file, gzipped or not, if it exists."""
    bare = path.with_name(path.name.removesuffix(".gz"))
    return next((one for one in (path, bare, Path(f"{bare}.gz")) if one.is_file()), None)


def _array(path: Path) -> Rows:
    packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            zero, kind, dimensions = np.frombuffer(file.read(4), ">u2,u1,u1")[0].item()
            if zero or kind not in _TYPES:
                raise DataError("its first bytes are not those of an idx file")
            shape = tuple(np.frombuffer(file.read(4 * dimensions), ">u4").tolist())
            dtype, offset = np.dtype(_TYPES[kind]), 4 + 4 * dimensions
            size = prod(shape) * dtype.itemsize
            if not packed and path.stat().st_size != offset + size:
                raise DataError(f"it has {path.stat().st_size} bytes, and needs {offset + size}")
            if not packed and not fits_in_memory(size):
                return MappedRows(path, dtype, offset, shape)
            content: Any = bytearray(file.read(size + 1))
    except _UNREADABLE as error:
        raise DataError(f"{path} cannot be read as an idx file: {error}") from error
    if len(content) != size:
        raise DataError(f"{path} has the wrong size for an idx file of shape {shape}")
    array: Array = np.frombuffer(content, dtype).reshape(shape)
    return array
