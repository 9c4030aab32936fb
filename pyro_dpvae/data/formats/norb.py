"""smallNORB's binary .mat files, which are not MATLAB's."""

import gzip
import zlib
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from pyro_dpvae.data.dataset import fits_in_memory
from pyro_dpvae.data.meaning import Array
from pyro_dpvae.data.rows import MappedRows
from pyro_dpvae.data.sources import Part, Source
from pyro_dpvae.errors import DataError

__all__ = ["is_norb", "read_norb"]

_TYPES = {
    0x1E3D4C51: "<f4",
    0x1E3D4C53: "<f8",
    0x1E3D4C54: "<i4",
    0x1E3D4C55: "<u1",
    0x1E3D4C56: "<i2",
}
_UNREADABLE = (ValueError, KeyError, OSError, EOFError, MemoryError, OverflowError, zlib.error)
_CLASSES = ("animal", "human", "airplane", "truck", "car")
_FACTORS = ("category", "instance", "elevation", "azimuth", "lighting")


def is_norb(path: Path) -> bool:
    """Return True if a file begins like those of smallNORB."""
    try:
        with _opened(path) as file:
            return int.from_bytes(file.read(4), "little") in _TYPES
    except (OSError, EOFError, zlib.error):
        return False


def read_norb(path: Path) -> Source:
    """Return smallNORB from one of its ``-dat.mat`` files and the files beside it.

    Labels are in ``-cat.mat``, further factors in ``-info.mat``. Of each pair of images only the
    first camera's is used. For a training file, the testing file beside it is the test split.
    """
    if "-dat" not in path.name:
        raise DataError(
            f"the images of smallNORB are in the files that end in -dat.mat, got {path}; use one "
            "of those"
        )
    parts = {"train": _part(path)}
    if "training" in path.name:
        others = sorted(path.parent.glob("*testing-dat.mat*"))
        if others:
            parts["test"] = _part(others[0])
    return Source(
        "smallnorb",
        parts,
        str(path),
        "images",
        factor_names=_FACTORS,
        notes=["only the first camera of two", f"classes: {', '.join(_CLASSES)}"],
    )


class _FirstCamera:
    """The first of the two images in each row."""

    def __init__(self, rows: Any) -> None:
        self.rows, self.dtype = rows, rows.dtype
        self.shape = (rows.shape[0], *rows.shape[2:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Array:
        return self.rows[rows][:, 0]


def _part(path: Path) -> Part:
    pair = _matrix(path)
    if len(pair.shape) != 4 or pair.shape[1] != 2:
        raise DataError(f"smallNORB must have pairs of images, got shape {pair.shape} in {path}")
    camera = _FirstCamera(pair)
    data = camera[:] if isinstance(pair, np.ndarray) else camera
    labels, info = (_beside(path, kind) for kind in ("cat", "info"))
    if labels is None or info is None:
        return Part(data, labels)
    return Part(data, labels, np.concatenate([labels[:, None], info], 1))


def _beside(path: Path, kind: str) -> Array | None:
    bare = path.with_name(path.name.removesuffix(".gz").replace("-dat", f"-{kind}"))
    found = next((one for one in (bare, Path(f"{bare}.gz")) if one.is_file()), None)
    return None if found is None else np.asarray(_matrix(found)[:])


def _opened(path: Path) -> Any:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _matrix(path: Path) -> Any:
    try:
        with _opened(path) as file:
            kind, dimensions = np.frombuffer(file.read(8), "<i4").tolist()
            # The file has at least three sizes, of which the last may be unused.
            sizes = np.frombuffer(file.read(4 * max(3, dimensions)), "<i4").tolist()
            shape, dtype = tuple(sizes[:dimensions]), np.dtype(_TYPES[kind])
            size, offset = prod(shape) * dtype.itemsize, 8 + 4 * len(sizes)
            if path.suffix != ".gz" and not fits_in_memory(size):
                return MappedRows(path, dtype, offset, shape)
            content = bytearray(file.read(size))
        return np.frombuffer(content, dtype).reshape(shape)
    except _UNREADABLE as error:
        raise DataError(f"{path} cannot be read as a file of smallNORB") from error
