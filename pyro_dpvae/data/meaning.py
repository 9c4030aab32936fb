"""Interpretation of users' arrays: dtype, range and layout; this is decided here only."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_dpvae._checks import check_choice
from pyro_dpvae.errors import DataError

__all__ = ["LAYOUTS", "Array", "Meaning", "Rows", "in_memory", "meaning_of"]

Array = NDArray[Any]

LAYOUTS = ("images", "sequences", "vectors")
"""Kinds of items: (channels, height, width), (steps, features) or (size,)."""

_AT_ONCE = 1 << 22  # bytes inspected or converted at a time
_DARK = 0.1  # images whose largest value is below this fraction of white are nearly black
_LOST = 1e-3  # largest rounding error of 32-bit numbers, as a fraction of a column's range


@runtime_checkable
class Rows(Protocol):
    """An array, or array in a file, with one row per item."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of items, then the shape of an item."""

    @property
    def dtype(self) -> Any:
        """The numpy or torch type of a number."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Any: ...


@dataclass(frozen=True)
class Meaning:
    """The interpretation of an array: how its rows become items.

    Attributes:
        layout: one of ``LAYOUTS``.
        item_shape: shape of an item.
        pixels: True for uint8 images, False for float32 items.
        scale: factor that numbers are multiplied with.
        channels_last: True if rows are images with channels after height and width.
        words: the decision in one line.
        cautions: warnings about numbers that hint at a mistake in the file.
        is_shades: True if numbers of images go from black to white.

    Example:
        >>> meaning = meaning_of({"train": np.full((5, 8, 8, 3), 0.5, np.float32)})
        >>> str(meaning)
        'float32 images in [0.5, 0.5], taken as shades from 0 to 1; shape (3, 8, 8)'
        >>> meaning.items(np.full((2, 8, 8, 3), 0.5, np.float32)).shape
        torch.Size([2, 3, 8, 8])
    """

    layout: str
    item_shape: tuple[int, ...]
    pixels: bool
    scale: int | float
    channels_last: bool
    words: str
    cautions: tuple[str, ...] = ()
    is_shades: bool = True

    def __str__(self) -> str:
        return f"{self.words}; shape {self.item_shape}"

    def items(self, array: Rows, *, owned: bool = False) -> Tensor:
        """Return the rows of an array as items, of shape (count, *item_shape).

        Args:
            array: the rows.
            owned: True if nobody else uses the array, so that items may reuse its memory.
        """
        if isinstance(array, Tensor) and self._is_meant(array):
            return array
        dtype = np.dtype(np.uint8 if self.pixels else np.float32)
        shape = (len(array), *self.item_shape)
        out = _memory_of(array, dtype) if owned else None
        out = np.empty(shape, dtype) if out is None else out.reshape(shape)
        for start, rows in _parts(array):
            out[start : start + len(rows)] = self._converted(rows)
        return torch.from_numpy(out)

    def _is_meant(self, items: Tensor) -> bool:
        """Return True if a tensor holds items already."""
        dtype = torch.uint8 if self.pixels else torch.float32
        return items.dtype == dtype and items.shape[1:] == self.item_shape and self.scale == 1

    def _converted(self, rows: Array) -> Array:
        if self.channels_last:
            rows = np.moveaxis(rows, -1, 1)
        rows = rows.reshape(len(rows), *self.item_shape)
        if self.pixels:
            return np.asarray(rows, np.uint8) * np.uint8(self.scale)
        return np.asarray(rows if self.scale == 1 else rows * self.scale, np.float32)


@dataclass
class _Numbers:
    """The range of the numbers of some arrays, and whether all are whole."""

    low: int | float = math.inf
    high: int | float = -math.inf
    whole: bool = True


def meaning_of(
    arrays: Mapping[str, Rows],
    *,
    layout: str | None = None,
    as_given: bool = False,
    where: str = "the data",
) -> Meaning:
    """Decide how to interpret the numbers of all splits of a data set together.

    ==========================  =====================================  ========================
    shape                       numbers                                meaning
    ==========================  =====================================  ========================
    (N, D)                      any                                    vectors
    (N, H, W)                   whole numbers of an integer type       images
    (N, T, F)                   real numbers                           sequences
    (N, C, H, W), (N, H, W, C)  any, with C = 1 or 3                   images
    ==========================  =====================================  ========================

    Images are 8-bit levels if they are whole numbers from 0 to 255. They are black and white if
    they are booleans, or of an integer type with values 0 and 1 only. They are 16-bit levels if
    they are uint16 above 255, and shades if they are real numbers from 0 to 1. Vectors and
    sequences are unchanged.

    Args:
        arrays: the splits by name, one item per row.
        layout: one of ``LAYOUTS``; None decides by the table.
        as_given: leave images of real numbers unchanged, whatever their range and position of
            channels.
        where: name of the data in messages.

    Raises:
        ValueError: for labels, empty data, NaN, pixels out of range, or other shapes.
    """
    if layout is not None:
        check_choice("layout", layout, LAYOUTS)
    for name, array in arrays.items():
        _check_rows(array, f"{name!r} of {where}")
    kinds = {name: _kind(array) for name, array in arrays.items()}
    shapes = {name: tuple(array.shape[1:]) for name, array in arrays.items()}
    if len({kind == "f" for kind in kinds.values()}) > 1:
        found = {name: _type_name(array) for name, array in arrays.items()}
        raise DataError(
            f"all splits must have one type of numbers, real or whole, got {found} in {where}"
        )
    if len(set(shapes.values())) > 1:
        raise DataError(f"training and held-out data of {where} must have one shape, got {shapes}")
    first = next(iter(arrays.values()))
    real = _kind(first) == "f"
    shape = tuple(first.shape[1:])
    usual = "vectors" if len(shape) == 1 else "sequences" if len(shape) == 2 and real else "images"
    layout = layout or usual
    named = f"{_type_name(first)} {layout}"
    numbers = _numbers(arrays, where, stop=layout == "images")
    if layout != "images":
        meaning = _of_numbers(shape, layout, f"{named} in {_interval(numbers)}", where)
        return replace(meaning, cautions=tuple(_rounded(arrays, where)))
    if as_given and real:
        words = f"{named} in {_interval(numbers)}, taken as they are"
        return Meaning("images", shape, False, 1, False, words, is_shades=False)
    item_shape, channels_last = _image_shape(shape, where)
    pixels, scale, words = _shades(first, numbers, real=real, where=where)
    cautions, high, white = [], numbers.high * scale, 255 if pixels else 1
    if scale != 255 and 0 < high < _DARK * white:
        cautions.append(
            f"the images of {where} are nearly black: their largest value is {high:g}, and white "
            f"is {white}; scale them in the file if {high:g} is meant to be white"
        )
    return Meaning(
        "images", item_shape, pixels, scale, channels_last, f"{named} {words}", tuple(cautions)
    )


def _check_rows(array: Rows, where: str) -> None:
    if 0 in array.shape:
        raise DataError(
            f"a data set must not be empty, got an array of shape {tuple(array.shape)} in {where}"
        )
    if not array.shape:
        raise DataError(
            f"data must have one row per item, got a single number in {where}; store an array of "
            "shape (items, ...)"
        )
    if len(array.shape) == 1:
        raise DataError(
            "data must have one row per item, got a single number per item "
            f"({_type_name(array)}, shape {tuple(array.shape)}) in {where}: these look like "
            "labels; name the array of images"
        )
    if _kind(array) not in "buif":
        raise DataError(f"data must be numbers, got {_type_name(array)} in {where}")


def _of_numbers(shape: tuple[int, ...], layout: str, words: str, where: str) -> Meaning:
    if layout == "vectors":
        return Meaning(layout, (math.prod(shape),), False, 1, False, words)
    if len(shape) > 2:
        raise DataError(
            f"sequences have shape (items, steps, features), got items of shape {shape} in {where}"
        )
    return Meaning(layout, shape if len(shape) == 2 else (*shape, 1), False, 1, False, words)


def _image_shape(shape: tuple[int, ...], where: str) -> tuple[tuple[int, int, int], bool]:
    """Return (channels, height, width), and whether channels come last in the array."""
    if len(shape) == 1 and math.isqrt(shape[0]) ** 2 == shape[0]:
        return (1, math.isqrt(shape[0]), math.isqrt(shape[0])), False
    if len(shape) == 2:
        return (1, *shape), False
    if len(shape) == 3 and shape[0] in (1, 3):
        return shape, False
    if len(shape) == 3 and shape[2] in (1, 3):
        return (shape[2], *shape[:2]), True
    raise DataError(
        "images must have shape (count, height, width), with 1 or 3 channels before or after "
        f"height and width if any, got items of shape {shape} in {where}; use layout='vectors' "
        "to read the numbers of an item as a vector"
    )


def _shades(
    array: Rows, numbers: _Numbers, *, real: bool, where: str
) -> tuple[bool, int | float, str]:
    """Return whether images are uint8, the factor of their numbers, and a description."""
    low, high = numbers.low, numbers.high
    if real and low >= 0 and high <= 1:
        return False, 1, f"in {_interval(numbers)}, taken as shades from 0 to 1"
    if real and not (numbers.whole and low >= 0 and high <= 255):
        raise DataError(
            f"images of real numbers must lie in [0, 1], got {_interval(numbers)} in {where}; "
            "scale them to [0, 1], or read them as numbers with layout='vectors'"
        )
    if low >= 0 and high <= 1:
        # Whole numbers 0 and 1 are a binary image, not two nearly black levels.
        return True, 255, "of 0 and 1, taken as black and white"
    if low >= 0 and high <= 255:
        return True, 1, "of levels from 0 to 255"
    if _type_name(array) == "uint16":
        return False, 1 / 65535, "of levels from 0 to 65535, taken as shades from 0 to 1"
    raise DataError(
        f"images of whole numbers must lie in 0..255, or be uint16, got {low:g}..{high:g} in "
        f"{where}; scale them, or use layout='vectors' to leave them unchanged"
    )


def _numbers(arrays: Mapping[str, Rows], where: str, *, stop: bool) -> _Numbers:
    """Inspect all numbers; with ``stop``, stop early at 8-bit images in files.

    Raises:
        ValueError: if some numbers are not finite in 32 bits.
    """
    found = _Numbers()
    for name, array in arrays.items():
        real, bad = _kind(array) == "f", 0
        number = float if real else int  # converts numpy's long doubles too
        for _, rows in _parts(array):
            if real:
                with np.errstate(over="ignore"):  # overflow gives infinity, which is counted
                    bad += int((~np.isfinite(rows.astype(np.float32))).sum())
                found.whole = found.whole and bool((rows == np.rint(rows)).all())
            if not bad:
                found.low = min(found.low, number(rows.min()))
                found.high = max(found.high, number(rows.max()))
            if stop and found.high > 1 and not in_memory(array) and array.dtype == np.uint8:
                break  # 8-bit levels, whatever follows
        if bad:
            size = math.prod(array.shape)
            raise DataError(
                f"data must be finite, got {bad} NaN or infinite values of {size} as 32-bit "
                f"numbers in {name!r} of {where}; repair, scale or remove those items"
            )
    return found


def _rounded(arrays: Mapping[str, Rows], where: str) -> Iterator[str]:
    """Yield a warning for a column whose range is too small for 32-bit numbers."""
    for name, array in arrays.items():
        if _kind(array) == "b" or array.dtype in (np.float32, np.float16, torch.float32):
            continue
        low, high, error = np.array(np.inf), np.array(-np.inf), np.array(0.0)
        for _, rows in _parts(array):
            exact = rows.reshape(len(rows), -1).astype(np.float64)
            low, high = np.minimum(low, exact.min(0)), np.maximum(high, exact.max(0))
            error = np.maximum(error, np.abs(exact - exact.astype(np.float32)).max(0))
        lossy = np.flatnonzero(error > _LOST * (high - low))
        if len(lossy):
            column = int(lossy[0])
            yield (
                f"32-bit numbers are too coarse for column {column} of {name!r} of {where}, "
                f"which lies in [{low[column]:.17g}, {high[column]:.17g}]; subtract an offset"
            )


def _interval(numbers: _Numbers) -> str:
    return f"[{numbers.low:.4g}, {numbers.high:.4g}]"


def _kind(array: Rows) -> str:
    if isinstance(array.dtype, torch.dtype):
        if array.dtype.is_complex:
            return "c"
        return "f" if array.dtype.is_floating_point else "b" if array.dtype == torch.bool else "i"
    return str(np.dtype(array.dtype).kind)


def _type_name(array: Rows) -> str:
    return str(array.dtype).removeprefix("torch.")


def in_memory(array: Rows) -> bool:
    """Return True for a tensor or an array that is not mapped from a file."""
    return isinstance(array, Tensor) or type(array) is np.ndarray


def _parts(array: Rows) -> Iterator[tuple[int, Array]]:
    """Yield blocks of rows with their first index; all rows together may exceed the memory."""
    of_one = max(1, math.prod(array.shape[1:]) * array.dtype.itemsize)
    size = max(1, _AT_ONCE // of_one)
    for start in range(0, len(array), size):
        rows = array[start : start + size]
        if isinstance(rows, Tensor):
            rows = rows.detach().cpu()
            rows = (rows.float() if rows.dtype == torch.bfloat16 else rows).numpy()
        yield start, np.asarray(rows)


def _memory_of(array: Rows, dtype: "np.dtype[Any]") -> Array | None:
    """Return the memory of an array if it can hold items of a type, else None."""
    if type(array) is not np.ndarray or array.dtype.itemsize != dtype.itemsize:
        return None
    if not (array.flags.c_contiguous and array.flags.writeable and array.dtype.isnative):
        return None
    return array.view(dtype)
