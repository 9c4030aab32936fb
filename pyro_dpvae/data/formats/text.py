"""Images as lines of text: the .amat files of statically binarised MNIST and its relatives."""

from math import isqrt
from pathlib import Path

import numpy as np

from pyro_dpvae.data.sources import Part, Source
from pyro_dpvae.errors import DataError

__all__ = ["read_amat"]

_AT_ONCE = 1 << 24  # characters


def read_amat(path: Path) -> Source:
    """Return the images of an .amat file, a square image per line.

    A last number beyond a square is the label.
    """
    blocks, width = [], 0
    with path.open(encoding="ascii", errors="replace") as file:
        while lines := file.readlines(_AT_ONCE):
            rows = [line for line in lines if line.strip()]
            try:
                numbers = np.array(" ".join(rows).split(), np.float32)
            except ValueError as error:
                raise DataError(f"{path} must hold numbers, and does not: {error}") from error
            width = width or len(rows[0].split())
            if len(numbers) != width * len(rows):
                raise DataError(f"all lines of {path} must have as many numbers, got others")
            with np.errstate(invalid="ignore"):  # NaN is equal to nothing
                whole = numbers.astype(np.uint8)
            blocks.append((whole if (whole == numbers).all() else numbers).reshape(-1, width))
    if not blocks:
        raise DataError(f"a data set needs data, got none in {path}")
    array = np.concatenate(blocks)  # of real numbers, if one of them is
    labels = None
    if isqrt(width) ** 2 != width and isqrt(width - 1) ** 2 == width - 1:
        array, labels = np.ascontiguousarray(array[:, :-1]), array[:, -1]
    return Source(path.stem, {"train": Part(array, labels)}, str(path), "images")
