"""HDF5: archives of named arrays such as 3dshapes.h5, and AnnData's .h5ad."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from pyro_dpvae._checks import check_choice
from pyro_dpvae.data.dataset import fits_in_memory
from pyro_dpvae.data.formats.extras import library
from pyro_dpvae.data.meaning import Rows
from pyro_dpvae.data.names import by_name
from pyro_dpvae.data.rows import HDF5Rows
from pyro_dpvae.data.sources import Part, Source
from pyro_dpvae.errors import DataError

__all__ = ["read_anndata", "read_hdf5"]

_LABELS = (
    "label",
    "labels",
    "cell_type",
    "celltype",
    "CellType",
    "cell_types",
    "leiden",
    "louvain",
)


def read_hdf5(path: Path, labels: str | None = None) -> Source:
    """Return the arrays of an HDF5 file; large ones are read as needed.

    Args:
        path: the file.
        labels: as for :func:`by_name`.
    """
    h5py = library("h5py", path)
    arrays: dict[str, Rows] = {}
    objects: list[str] = []

    def take(name: str, found: Any) -> None:
        if not isinstance(found, h5py.Dataset) or found.shape is None:
            return
        if h5py.check_string_dtype(found.dtype):
            arrays[name] = np.array(found.asstr()[()], dtype=str)
        elif found.dtype.hasobject:
            objects.append(name)
        else:
            arrays[name] = found[()] if fits_in_memory(found.nbytes) else HDF5Rows(path, name)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(take)
    except (OSError, RuntimeError, ValueError, KeyError, MemoryError) as error:
        raise DataError(f"{path} cannot be read as an HDF5 file: {error}") from error
    return by_name(arrays, path.stem, str(path), objects=objects, labels=labels)


def read_anndata(path: Path, labels: str | None = None) -> Source:
    """Return the counts of an AnnData file: its layer ``counts`` if it has one, else ``X``.

    Args:
        path: the file.
        labels: the column of ``obs`` with the labels; None takes one with a name such as
            ``cell_type``.
    """
    anndata = library("anndata", path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about future versions of anndata
            found = anndata.read_h5ad(path)
    except Exception as error:  # anndata raises many classes for damaged files
        raise DataError(f"{path} cannot be read as an AnnData file: {error}") from error
    layer = "counts" if "counts" in found.layers else None
    numbers = found.X if layer is None else found.layers[layer]
    if numbers is None:
        raise DataError(f"{path} has no numbers: X or the layer 'counts' must have some")
    if labels is not None:
        check_choice("labels", labels, found.obs.columns)
    label = labels or next((name for name in _LABELS if name in found.obs), None)
    notes = [f"numbers of {'X' if layer is None else 'layer counts'}"]
    if label is not None:
        notes.append(f"obs[{label!r}] is the label")
    dense = numbers.toarray() if hasattr(numbers, "toarray") else np.asarray(numbers)
    of_rows = None if label is None else np.asarray(found.obs[label].astype(str))
    return Source(
        path.stem,
        {"train": Part(dense, of_rows, names=np.asarray(found.obs_names))},
        str(path),
        "vectors",
        columns=tuple(map(str, found.var_names)),
        notes=notes,
    )
