"""Data from .npy and .npz files: which array is which."""

import struct
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from pyro_dpvae.data.dataset import DataSet, Split, split_size
from pyro_dpvae.data.forms import Array, form_of
from pyro_dpvae.data.mapped import MappedData, read_archive, read_array

__all__ = ["held_out_split", "load_arrays"]

_SEED = 0
_HELD_OUT = 0.1

# What numpy and zipfile raise of damaged files: of headers that are cut, that ask for more than
# memory or an integer holds, of packing that Python does not know, of a password.
_UNREADABLE = (
    *(ValueError, OSError, EOFError, KeyError, SyntaxError, TokenError),
    *(MemoryError, OverflowError, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error),
)


def load_arrays(path: Path) -> DataSet:
    """Return the data set of a .npy or .npz file.

    A .npz file holds ``train``, and ``test`` or else ``valid`` as held-out data; or one array of
    data, as ``images`` or ``x`` or its only array. Labels are kept where an array of that name
    (``labels``, ``train_labels``, ``test_labels``) fits, and factors of variation, a column each,
    where one of the name ``factors`` or ``test_factors`` does. Without held-out data, a tenth is
    held out at random, the same tenth each time. What is too large to be held is memory-mapped,
    unless the file is compressed.

    Raises:
        ValueError: if the file is none, or its arrays are not data.
    """
    try:
        packed = zipfile.is_zipfile(path)
        arrays = read_archive(path) if packed else {"images": read_array(path)}
    except _UNREADABLE as error:
        raise ValueError(
            f"{path} must be a .npy or .npz file of numbers, and cannot be read as one; "
            "arrays of objects are not unpickled"
        ) from error
    where = str(path)
    if "train" in arrays:
        held_out = next((name for name in ("test", "valid") if name in arrays), None)
        if held_out is not None:
            return DataSet(
                path.stem,
                to_split(arrays["train"], f"'train' of {where}"),
                to_split(arrays[held_out], f"{held_out!r} of {where}"),
                _labels(arrays, "train_labels", len(arrays["train"])),
                _labels(arrays, f"{held_out}_labels", len(arrays[held_out])),
                _factors(arrays, f"{held_out}_factors", len(arrays[held_out])),
            )
    name = _data_name(arrays, where)
    data = to_split(arrays[name], f"{name!r} of {where}")
    count = split_size(data)
    labels, factors = _labels(arrays, "labels", count), _factors(arrays, "factors", count)
    return held_out_split(path.stem, data, labels, factors)


def held_out_split(
    name: str, data: Split, labels: Tensor | None, factors: Tensor | None = None
) -> DataSet:
    """Return a data set with a tenth held out at random, the same tenth each time."""
    size = split_size(data)
    if size < 2:
        raise ValueError(f"at least 2 data are needed to hold some out, got {size} in {name}")
    order = torch.randperm(size, generator=torch.Generator().manual_seed(_SEED))
    count = max(1, round(_HELD_OUT * size))
    test, train = order[:count], order[count:]
    return DataSet(
        name,
        _chosen(data, train),
        _chosen(data, test),
        None if labels is None else labels[train],
        None if labels is None else labels[test],
        None if factors is None else factors[test],
    )


def to_split(array: Array, where: str) -> Split:
    """Return an array as data: in memory, or as needed if it is memory-mapped.

    Raises:
        ValueError: as :func:`pyro_dpvae.data.forms.form_of`.
    """
    form = form_of(array, where)
    return MappedData(array, form) if isinstance(array, np.memmap) else form.data(array)


def _chosen(data: Split, indices: Tensor) -> Split:
    return data[indices] if isinstance(data, Tensor) else Subset(data, indices.tolist())


def _data_name(arrays: dict[str, Array], where: str) -> str:
    known: list[str] = [name for name in ("train", "images", "x") if name in arrays]
    candidates = known[:1] or [
        name for name in arrays if "label" not in name and "factor" not in name
    ]
    if len(candidates) != 1:
        raise ValueError(
            f"a .npz file must name its data 'train' and 'test', or 'images', or 'x', "
            f"got arrays {sorted(arrays)} in {where}"
        )
    return candidates[0]


def _labels(arrays: dict[str, Array], name: str, count: int) -> Tensor | None:
    array = arrays.get(name)
    if array is None or array.shape != (count,) or array.dtype.kind not in "bui":
        return None
    return torch.from_numpy(array.astype(np.int64))


def _factors(arrays: dict[str, Array], name: str, count: int) -> Tensor | None:
    array = arrays.get(name)
    if array is None or array.ndim != 2 or len(array) != count or array.dtype.kind not in "bui":
        return None
    return torch.from_numpy(array.astype(np.int64))
