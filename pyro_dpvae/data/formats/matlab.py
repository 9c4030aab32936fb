"""MATLAB's .mat files: SVHN, Omniglot, silhouettes, Frey faces, cars3d, and named arrays."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pyro_dpvae.data.formats.extras import library
from pyro_dpvae.data.meaning import Array
from pyro_dpvae.data.names import by_name
from pyro_dpvae.data.sources import Part, Source
from pyro_dpvae.errors import DataError

__all__ = ["is_cars", "read_cars", "read_matlab"]

_CARS = "*_mesh.mat"


def read_matlab(path: Path) -> Source:
    """Return the data of a .mat file, by the names and shapes in published files."""
    arrays = _arrays(path)
    name, where = path.stem, str(path)
    if "X" in arrays and arrays["X"].ndim == 4 and arrays["X"].shape[:3] == (32, 32, 3):
        return _svhn(arrays, name, where)
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
    return next(folder.rglob(_CARS), None) is not None


def read_cars(folder: Path) -> Source:
    """Return cars3d: 24 azimuths and 4 elevations per car, arrays ``im`` of (h, w, 3, 24, 4)."""
    images, factors = [], []
    for car, path in enumerate(sorted(folder.rglob(_CARS))):
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


def _svhn(arrays: Mapping[str, Array], name: str, where: str) -> Source:
    """Images are (32, 32, 3, N); the digit 0 has the label 10."""
    images = np.ascontiguousarray(np.moveaxis(arrays["X"], -1, 0))
    labels = arrays.get("y")
    if labels is not None:
        labels = np.where(labels == 10, 0, labels)
    return Source(
        name, {"train": Part(images, labels)}, where, "images", notes=["label 10 is the digit 0"]
    )


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
