"""What the numbers of an array mean: uint8 images or float32 vectors."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Array", "Form", "form_of"]

Array = NDArray[np.generic]

_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Form:
    """How rows of an array become data.

    Attributes:
        scale: what pixels are multiplied by to lie in 0 to 255; None for vectors.
        channels: the dimension of an image's channels, counted from the row's; None without.
    """

    scale: int | None
    channels: int | None

    def data(self, rows: Array) -> Tensor:
        """Return rows as uint8 images (count, channels, h, w) or float32 vectors (count, size)."""
        if self.scale is None:
            return torch.from_numpy(np.array(rows, dtype=np.float32))
        if rows.dtype.kind == "f":
            levels = np.rint(rows * self.scale).astype(np.uint8)
        else:
            levels = np.array(rows, dtype=np.uint8) * np.uint8(self.scale)
        images = torch.from_numpy(levels)
        if self.channels is None:
            images = images[:, None]
        elif self.channels == 3:
            images = images.permute(0, 3, 1, 2)
        return images.contiguous()


def form_of(array: Array, where: str) -> Form:
    """Return the form of an array, a row per datum, from all its numbers.

    Raises:
        ValueError: for labels, an empty array, NaN, grey values outside [0, 1], other shapes.
    """
    if array.size == 0:
        raise ValueError(
            f"a data set needs data, got an empty array of shape {array.shape} {where}"
        )
    if array.ndim == 0:
        raise ValueError(
            f"data have a row per datum, got a single number in {where}; store an array of shape "
            "(data, ...)"
        )
    if array.ndim == 1:
        raise ValueError(
            f"data have a row per datum, got one number each ({array.dtype}, shape "
            f"{array.shape}) in {where}: these look like labels; name the array of images"
        )
    if array.dtype.kind not in "buif":
        raise ValueError(f"data must be numbers, got {array.dtype} in {where}")
    _check_finite(array, where)
    if array.ndim == 2:
        return Form(None, None)
    return Form(_scale(array, where), _channels(array.shape, where))


def _check_finite(array: Array, where: str) -> None:
    if array.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):  # what overflows is infinite, and counted
        bad = sum(int((~np.isfinite(rows.astype(np.float32))).sum()) for rows in _parts(array))
    if bad:
        raise ValueError(
            f"data must be finite, got {bad} values of {array.size} that are NaN or infinite "
            f"as 32-bit numbers in {where}; repair, scale or leave out those data"
        )


def _scale(array: Array, where: str) -> int:
    low, high = _range(array)
    if array.dtype.kind == "f":
        if low < 0 or high > 1:
            raise ValueError(
                f"images of real numbers must lie in [0, 1], got [{low:g}, {high:g}] in {where}; "
                "scale them, or store them as uint8"
            )
        return 255
    if low < 0 or high > 255:
        raise ValueError(
            f"images of whole numbers must lie in 0..255, got {low}..{high} in {where}"
        )
    # Whole numbers with no more than 0 and 1 are a binary image, not two all but black levels.
    return 255 if high <= 1 else 1


def _range(array: Array) -> tuple[int | float, int | float]:
    low, high = math.inf, -math.inf
    for rows in _parts(array):
        number = float if array.dtype.kind == "f" else int  # also of numpy's long doubles
        low, high = min(low, number(rows.min())), max(high, number(rows.max()))
        if array.dtype == np.uint8 and high > 1:  # then it has levels, whatever else it holds
            break
    return low, high


def _channels(shape: tuple[int, ...], where: str) -> int | None:
    if len(shape) == 3:
        return None
    for dimension in (1, 3):
        if len(shape) == 4 and shape[dimension] in (1, 3):
            return dimension
    raise ValueError(
        "images must have shape (count, height, width), with 1 or 3 channels before or behind "
        f"height and width if any, got {tuple(shape)} in {where}"
    )


def _parts(array: Array) -> Iterator[Array]:
    """Yield the rows of an array, some at a time, which may be larger than memory."""
    size = max(1, _AT_ONCE * len(array) // array.nbytes)
    for start in range(0, len(array), size):
        yield array[start : start + size]
