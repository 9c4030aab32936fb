"""Binary files: idx, the format of MNIST and its relatives, and smallNORB's .mat files."""

import gzip
import re
import zlib
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from pyro_dpvae.data.dataset import fits_in_memory
from pyro_dpvae.data.meaning import Array, Rows
from pyro_dpvae.data.sources import MappedRows, Part, Source
from pyro_dpvae.errors import DataError

__all__ = ["is_idx", "is_norb", "read_idx", "read_norb"]

_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_UNREADABLE = (
    *(ValueError, KeyError, OSError, EOFError, IndexError),
    *(MemoryError, OverflowError, zlib.error),
)
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
        with _opened(path) as file:
            zero, kind, dimensions = np.frombuffer(file.read(4), ">u2,u1,u1")[0].item()
            if zero or kind not in _TYPES:
                raise DataError("its first bytes are not those of an idx file")
            shape = tuple(np.frombuffer(file.read(4 * dimensions), ">u4").tolist())
            size = 4 + 4 * dimensions + prod(shape) * np.dtype(_TYPES[kind]).itemsize
            if not packed and path.stat().st_size != size:
                raise DataError(f"it has {path.stat().st_size} bytes, and needs {size}")
            return _content(path, file, np.dtype(_TYPES[kind]), shape, whole=True)
    except _UNREADABLE as error:
        raise DataError(f"{path} cannot be read as an idx file: {error}") from error


def _opened(path: Path) -> Any:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _content(
    path: Path,
    file: Any,
    dtype: "np.dtype[Any]",
    shape: tuple[int, ...],
    *,
    whole: bool,
) -> Rows:
    """Return the array that follows in a file; ``whole`` if nothing may follow the array."""
    size = prod(shape) * dtype.itemsize
    if path.suffix != ".gz" and not fits_in_memory(size):
        return MappedRows(path, dtype, file.tell(), shape)
    content = bytearray(file.read(size + whole))
    if len(content) != size:
        raise DataError(f"it has the wrong size for an array of shape {shape}")
    array: Array = np.frombuffer(content, dtype).reshape(shape)
    return array


_NORB_TYPES = {
    0x1E3D4C51: "<f4",
    0x1E3D4C53: "<f8",
    0x1E3D4C54: "<i4",
    0x1E3D4C55: "<u1",
    0x1E3D4C56: "<i2",
}
_CLASSES = ("animal", "human", "airplane", "truck", "car")
_FACTORS = ("category", "instance", "elevation", "azimuth", "lighting")


def is_norb(path: Path) -> bool:
    """Return True if a file begins like those of smallNORB."""
    try:
        with _opened(path) as file:
            return int.from_bytes(file.read(4), "little") in _NORB_TYPES
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
    parts = {"train": _norb_part(path)}
    if "training" in path.name:
        others = sorted(path.parent.glob("*testing-dat.mat*"))
        if others:
            parts["test"] = _norb_part(others[0])
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


def _norb_part(path: Path) -> Part:
    pair = _matrix(path)
    if len(pair.shape) != 4 or pair.shape[1] != 2:
        raise DataError(f"smallNORB must have pairs of images, got shape {pair.shape} in {path}")
    camera = _FirstCamera(pair)
    data = camera if isinstance(pair, MappedRows) else camera[:]
    names = (path.name.replace("-dat", kind) for kind in ("-cat", "-info"))
    found = [_beside(path.with_name(name)) for name in names]
    labels, info = (None if one is None else np.asarray(_matrix(one)[:]) for one in found)
    if labels is None or info is None:
        return Part(data, labels)
    return Part(data, labels, np.concatenate([labels[:, None], info], 1))


def _matrix(path: Path) -> Any:
    try:
        with _opened(path) as file:
            kind, dimensions = np.frombuffer(file.read(8), "<i4").tolist()
            # The file has at least three sizes, of which the last may be unused.
            sizes = np.frombuffer(file.read(4 * max(3, dimensions)), "<i4").tolist()
            dtype, shape = np.dtype(_NORB_TYPES[kind]), tuple(sizes[:dimensions])
            return _content(path, file, dtype, shape, whole=False)
    except _UNREADABLE as error:
        raise DataError(f"{path} cannot be read as a file of smallNORB") from error
