"""Data from .npy and .npz files: which array is which, and what its numbers mean."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_dpvae.data.dataset import DataSet

__all__ = ["held_out_split", "load_arrays"]

_SEED = 0
_HELD_OUT = 0.1

Array = NDArray[np.generic]


def load_arrays(path: Path) -> DataSet:
    """Return the data set of a .npy or .npz file.

    A .npz file holds ``train``, and ``test`` or else ``valid`` as held-out data; or one array of
    data, as ``images`` or ``x`` or its only array. Labels are kept where an array of that name
    (``labels``, ``train_labels``, ``test_labels``) fits, and factors of variation, a column each,
    where one of the name ``factors`` or ``test_factors`` does. Without held-out data, a tenth is
    held out at random, the same tenth each time.

    Raises:
        ValueError: if the file is none, or its arrays are not data.
    """
    try:
        content = np.load(path, allow_pickle=False)
        arrays = {"images": content} if isinstance(content, np.ndarray) else dict(content.items())
    except (ValueError, OSError, EOFError) as error:
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
                to_data(arrays["train"], f"'train' of {where}"),
                to_data(arrays[held_out], f"{held_out!r} of {where}"),
                _labels(arrays, "train_labels", len(arrays["train"])),
                _labels(arrays, f"{held_out}_labels", len(arrays[held_out])),
                _factors(arrays, f"{held_out}_factors", len(arrays[held_out])),
            )
    name = _data_name(arrays, where)
    data = to_data(arrays[name], f"{name!r} of {where}")
    labels, factors = _labels(arrays, "labels", len(data)), _factors(arrays, "factors", len(data))
    return held_out_split(path.stem, data, labels, factors)


def held_out_split(
    name: str, data: Tensor, labels: Tensor | None, factors: Tensor | None = None
) -> DataSet:
    """Return a data set with a tenth held out at random, the same tenth each time."""
    if len(data) < 2:
        raise ValueError(f"at least 2 data are needed to hold some out, got {len(data)} in {name}")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(_SEED))
    count = max(1, round(_HELD_OUT * len(data)))
    test, train = order[:count], order[count:]
    return DataSet(
        name,
        data[train],
        data[test],
        None if labels is None else labels[train],
        None if labels is None else labels[test],
        None if factors is None else factors[test],
    )


def to_data(array: Array, where: str) -> Tensor:
    """Return an array as uint8 images (count, channels, height, width) or float32 vectors.

    Raises:
        ValueError: for labels, an empty array, NaN, grey values outside [0, 1], other shapes.
    """
    if array.size == 0:
        raise ValueError(
            f"a data set needs data, got an empty array of shape {array.shape} {where}"
        )
    if array.ndim == 1:
        raise ValueError(
            f"data have a row per datum, got one number each ({array.dtype}, shape "
            f"{array.shape}) in {where}: these look like labels; name the array of images"
        )
    if array.dtype.kind not in "buif":
        raise ValueError(f"data must be numbers, got {array.dtype} in {where}")
    if not np.isfinite(array).all():
        raise ValueError(
            f"data must be finite, got {int((~np.isfinite(array)).sum())} values of {array.size} "
            f"that are NaN or infinite in {where}; repair or leave out those data"
        )
    if array.ndim == 2:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    return _channels_first(torch.from_numpy(_bytes(array, where)), where)


def _bytes(array: Array, where: str) -> Array:
    low, high = array.min(), array.max()
    if array.dtype.kind == "f":
        if low < 0 or high > 1:
            raise ValueError(
                f"images of real numbers must lie in [0, 1], got [{low:g}, {high:g}] in {where}; "
                "scale them, or store them as uint8"
            )
        return np.rint(array * 255).astype(np.uint8)
    if low < 0 or high > 255:
        raise ValueError(
            f"images of whole numbers must lie in 0..255, got {low}..{high} in {where}"
        )
    # Whole numbers with no more than 0 and 1 are a binary image, not two all but black levels.
    return np.ascontiguousarray(array).astype(np.uint8) * np.uint8(255 if high <= 1 else 1)


def _channels_first(images: Tensor, where: str) -> Tensor:
    if images.dim() == 3:
        return images[:, None].contiguous()
    if images.dim() == 4 and images.shape[1] in (1, 3):
        return images.contiguous()
    if images.dim() == 4 and images.shape[3] in (1, 3):
        return images.permute(0, 3, 1, 2).contiguous()
    raise ValueError(
        "images must have shape (count, height, width), with 1 or 3 channels before or behind "
        f"height and width if any, got {tuple(images.shape)} in {where}"
    )


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
