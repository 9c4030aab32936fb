"""The choice of a reader for a file or folder, and the files of other splits beside it."""

import re
from collections.abc import Callable
from pathlib import Path

from pyro_dpvae.data.formats.binary import is_idx, is_norb, read_idx, read_norb
from pyro_dpvae.data.formats.hdf5 import is_cars, read_anndata, read_cars, read_hdf5, read_matlab
from pyro_dpvae.data.formats.images import read_images
from pyro_dpvae.data.formats.numpy_files import read_npy, read_npz
from pyro_dpvae.data.formats.tables import read_amat, read_table
from pyro_dpvae.data.sources import Source
from pyro_dpvae.errors import DataError

__all__ = ["ENDINGS", "read"]

# Readers of files that name their columns or arrays, and so their labels.
_NAMING: dict[str, Callable[[Path, str | None], Source]] = {
    ".csv": read_table,
    ".h5": read_hdf5,
    ".h5ad": read_anndata,
    ".hdf5": read_hdf5,
    ".npz": read_npz,
    ".parquet": read_table,
    ".tsv": read_table,
}
_READERS: dict[str, Callable[..., Source]] = {
    **_NAMING,
    ".amat": read_amat,
    ".mat": read_matlab,
    ".npy": read_npy,
}
ENDINGS = (*_READERS, "-ubyte", ".gz")
"""The endings of supported files."""

_SPLITS = {"valid": ("valid", "val", "validation"), "test": ("test", "testing")}


def read(
    path: Path,
    *,
    background: str | None = None,
    image_size: int | None = None,
    labels: str | None = None,
) -> Source:
    """Read a file or folder.

    For a file of one split with ``train`` in its name, the files with ``valid``, ``val``,
    ``validation`` or ``test`` in its place are read too.

    Args:
        path: the file or folder.
        background: as for :func:`read_images`.
        image_size: as for :func:`read_images`.
        labels: the name of the column or array of labels; None takes one with a usual name.

    Raises:
        ImportError: if a library for the file is not installed.
        ValueError: if the format is unknown, the file is damaged, or it has no such labels.
    """
    if labels is not None and (path.is_dir() or not path.name.lower().endswith((*_NAMING,))):
        raise DataError(
            f"labels names a column or an array of a file that ends in {', '.join(_NAMING)}, got "
            f"labels={labels!r} for {path}; leave it out (subfolders of images are classes)"
        )
    if path.is_dir():
        return _read_folder(path, background, image_size)
    if image_size is not None:
        raise DataError(
            f"image_size applies to folders of images, got {image_size} for {path}; leave it out"
        )
    source = _read_file(path, labels)
    if len(source.parts) > 1:
        return source
    for split, words in _SPLITS.items():
        # The same name, if it is not that of a training file.
        names = [re.sub(r"(?<![a-z])train(?:ing)?(?![a-z])", word, path.name) for word in words]
        beside = map(path.with_name, names)
        found = next((one for one in beside if one != path and one.is_file()), None)
        if found is None:
            continue
        other = _read_file(found, labels)
        if other.columns != source.columns:
            raise DataError(
                f"all splits must have the same columns, got {other.columns} in {found} and "
                f"{source.columns} in {path}"
            )
        source.parts[split] = other.parts["train"]
        source.notes.append(f"{split} is {found.name}")
    return source


def _read_folder(path: Path, background: str | None, image_size: int | None) -> Source:
    if is_cars(path):
        return read_cars(path)
    files = sorted(one for one in path.iterdir() if one.is_file())
    if idx := [one for one in files if is_idx(one) and "images" in one.name]:
        return read_idx(next((one for one in idx if "train" in one.name), idx[0]))
    if norb := [one for one in files if "-training-dat.mat" in one.name]:
        return read_norb(norb[0])
    return read_images(path, background=background, image_size=image_size)


def _read_file(path: Path, labels: str | None) -> Source:
    if is_idx(path):
        return read_idx(path)
    name = path.name.lower()
    if re.search(r"\.mat(\.gz)?$", name) and is_norb(path):
        return read_norb(path)
    for ending, reader in _READERS.items():
        if name.endswith(ending):
            return reader(path) if labels is None else reader(path, labels)
    raise DataError(
        f"a data file must be an idx file or end in one of {', '.join(_READERS)}; got {path}"
    )
