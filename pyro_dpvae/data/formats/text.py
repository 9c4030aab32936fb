"""Images as lines of text: the .amat files of statically binarised MNIST."""

from math import isqrt
from pathlib import Path

import numpy as np

from pyro_dpvae.data.sources import Part, Source
from pyro_dpvae.errors import DataError

_AT_ONCE = 1 << 24  # characters


def read_amat(path: Path) -> Source:
    """Return the images of an .amat file, one square image per line.

    An extra last number is the label.
    """
    blocks, width = [], 0
    with path.open(encoding="ascii", errors="replace") as file:
        while lines := file.readlines(_AT_ONCE):
            rows = [line for line in lines if line.strip()]
            try:
                numbers = np.array(" ".join(rows).split(), np.float32)
            except ValueError as error:
                raise DataError(f"{path} must hold numbers only: {error}") from error
            width = width or len(rows[0].split())
            if len(numbers) != width * len(rows):
                raise DataError(f"all lines of {path} must have the same number of entries")
            with np.errstate(invalid="ignore"):  # NaN is not equal to itself
                whole = numbers.astype(np.uint8)
            blocks.append((whole if (whole == numbers).all() else numbers).reshape(-1, width))
    if not blocks:
        raise DataError(f"{path} is empty: a data set needs items")
    array = np.concatenate(blocks)  # real numbers if one block has some
    labels = None
    if isqrt(width) ** 2 != width and isqrt(width - 1) ** 2 == width - 1:
        array, labels = np.ascontiguousarray(array[:, :-1]), array[:, -1]
    return Source(path.stem, {"train": Part(array, labels)}, str(path), "images")
