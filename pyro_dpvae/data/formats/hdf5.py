"""HDF5, AnnData's .h5ad, and MATLAB's .mat files with their published data sets."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pyro_dpvae._checks import check_choice
from pyro_dpvae._files import files_below
from pyro_dpvae.data.dataset import fits_in_memory
from pyro_dpvae.data.meaning import Array, Rows
from pyro_dpvae.data.names import by_name
from pyro_dpvae.data.sources import HDF5Rows, Part, Source, library
from pyro_dpvae.errors import DataError

__all__ = ["is_cars", "read_anndata", "read_cars", "read_hdf5", "read_matlab"]

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
    of_rows = None if label is None else found.obs[label].to_numpy()
    if label is not None and (missing := int(found.obs[label].isna().sum())):
        if labels is not None:
            raise DataError(
                f"{missing} rows of {path} have no label in obs[{label!r}]: every row must have "
                "one; add labels, or remove the rows"
            )
        notes.append(f"{missing} rows have no obs[{label!r}], which is not used as the label")
        of_rows = None
    elif label is not None:
        notes.append(f"obs[{label!r}] is the label")
    if of_rows is not None and of_rows.dtype.kind not in "iuf":
        of_rows = of_rows.astype(str)
    dense = numbers.toarray() if hasattr(numbers, "toarray") else np.asarray(numbers)
    return Source(
        path.stem,
        {"train": Part(dense, of_rows, names=np.asarray(found.obs_names))},
        str(path),
        "vectors",
        columns=tuple(map(str, found.var_names)),
        notes=notes,
    )


_CARS = "*_mesh.mat"


def read_matlab(path: Path) -> Source:
    """Return the data of a .mat file, by the names and shapes in published files."""
    arrays = _arrays(path)
    name, where = path.stem, str(path)
    if "X" in arrays and arrays["X"].ndim == 4 and arrays["X"].shape[:3] == (32, 32, 3):
        # SVHN: images are (32, 32, 3, N); the digit 0 has the label 10.
        images = np.ascontiguousarray(np.moveaxis(arrays["X"], -1, 0))
        digits = None if "y" not in arrays else np.where(arrays["y"] == 10, 0, arrays["y"])
        notes = ["label 10 is the digit 0"]
        return Source(name, {"train": Part(images, digits)}, where, "images", notes=notes)
    if {"data", "testdata", "target", "testtarget"} <= {*arrays} and len(arrays["data"]) == 784:
        return _chardata(arrays, name, where)
    if "ff" in arrays and arrays["ff"].shape[0] == 560:
        faces = np.ascontiguousarray(arrays["ff"].T).reshape(-1, 28, 20)
        return Source(name, {"train": Part(faces)}, where, "images")
    source = by_name({key: array for key, array in arrays.items() if array.ndim}, name, where)
    if "classnames" in arrays or "silhouettes" in name.lower():
        _upright_silhouettes(source)
    return source


def is_cars(folder: Path) -> bool:
    """Return True if a folder has the meshes of cars3d."""
    return any(path.match(_CARS) for path in files_below(folder))


def read_cars(folder: Path) -> Source:
    """Return cars3d: 24 azimuths and 4 elevations per car, arrays ``im`` of (h, w, 3, 24, 4)."""
    images, factors = [], []
    for car, path in enumerate(sorted(path for path in files_below(folder) if path.match(_CARS))):
        mesh = _arrays(path).get("im")
        if mesh is None or mesh.ndim != 5:
            raise DataError(
                f"a mesh of cars3d must have an array 'im' of 5 dimensions; {path} has none"
            )
        azimuths, elevations = mesh.shape[3:]
        views = mesh.transpose(3, 4, 0, 1, 2)
        images.append(views.reshape(-1, *views.shape[2:]))
        azimuth, elevation = np.unravel_index(
            np.arange(azimuths * elevations), (azimuths, elevations)
        )
        factors.append(np.stack([elevation, azimuth, np.full_like(azimuth, car)], 1))
    part = Part(np.concatenate(images), None, np.concatenate(factors))
    names = ("elevation", "azimuth", "car")
    return Source("cars3d", {"train": part}, str(folder), "images", factor_names=names)


def _arrays(path: Path) -> dict[str, Array]:
    io = library("scipy.io", path)
    try:
        if path.read_bytes()[:10] == b"MATLAB 7.3":
            return _hdf5_arrays(path)
        found: Mapping[str, Any] = io.loadmat(path)
    except ImportError:
        raise
    except Exception as error:  # scipy and h5py raise many classes for damaged files
        raise DataError(f"{path} cannot be read as a .mat file: {error}") from error
    return {
        key: array
        for key, array in found.items()
        if isinstance(array, np.ndarray) and (array.dtype.kind in "buifU" or key == "classnames")
    }


def _hdf5_arrays(path: Path) -> dict[str, Array]:
    h5py = library("h5py", path)
    with h5py.File(path, "r") as file:
        # HDF5 has MATLAB's dimensions in reverse order.
        return {
            key: array[()].T
            for key, array in file.items()
            if isinstance(array, h5py.Dataset) and array.dtype.kind in "buif"
        }


def _chardata(arrays: Mapping[str, Array], name: str, where: str) -> Source:
    """Omniglot of Burda, Grosse, Salakhutdinov (2015): one column per image, pixels by columns."""
    parts = {
        split: Part(_by_columns(arrays[data].T, 28), arrays[target].argmax(0))
        for split, data, target in (
            ("train", "data", "target"),
            ("test", "testdata", "testtarget"),
        )
    }
    notes = ["ink is 1", "labels are the alphabets"]
    return Source(name, parts, where, "images", notes=notes)


def _upright_silhouettes(source: Source) -> None:
    """Reshape Caltech 101 silhouettes, which are flat and column by column; the object is 0."""
    for part in source.parts.values():
        data = np.asarray(part.data[:])
        side = round(data.shape[1] ** 0.5) if data.ndim == 2 else 0
        if side**2 != data.shape[1]:
            return
        part.data = _by_columns(data, side)
    source.layout = "images"
    source.notes.append("as in the file, the object is 0 and the background 1")


def _by_columns(rows: Array, side: int) -> Array:
    """Return images whose numbers are stored column by column."""
    return np.ascontiguousarray(rows.reshape(-1, side, side).transpose(0, 2, 1))
