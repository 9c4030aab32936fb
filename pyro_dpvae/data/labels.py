"""Labels and factors of variation in the forms in which files store them."""

import warnings
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from pyro_dpvae.data.meaning import Array
from pyro_dpvae.errors import DataError, DataWarning

__all__ = ["class_numbers", "factor_numbers", "is_factors", "varying", "warn"]

_MANY = 256  # the largest number of values of a real factor that counts as classes


def warn(text: str) -> None:
    """Warn the caller of the calling function that data may not be meant as they are taken."""
    warnings.warn(text, category=DataWarning, stacklevel=3)


def class_numbers(
    labels: Mapping[str, Array], where: str
) -> tuple[dict[str, Tensor], tuple[str, ...] | None]:
    """Return the class number of each item by split, and the names of the classes.

    Labels are numbers or texts of shape (N,) or (N, 1), or one-hot rows (N, classes). Whole
    numbers from 0 are kept and have no names.

    Args:
        labels: labels by split.
        where: name of the data in messages.

    Warns:
        UserWarning: if labels are not classes; they are ignored.
    """
    flat = {split: _flat(array) for split, array in labels.items()}
    if not flat:
        return {}, None
    every = np.concatenate(list(flat.values()))
    if every.dtype.kind in "fc" and not (every.real % 1 == 0).all():
        warn(
            f"the labels of {where} are real numbers, which cannot be classes, and are ignored; "
            "store whole numbers or texts"
        )
        return {}, None
    if every.dtype.kind not in "buifSUO":
        warn(
            f"labels must be whole numbers or texts, got {every.dtype} in {where}; they are left "
            "out"
        )
        return {}, None
    if every.dtype.kind in "buif" and every.min() >= 0:
        return {split: _integers(array) for split, array in flat.items()}, None
    names = np.unique(every)
    return (
        {split: _integers(np.searchsorted(names, array)) for split, array in flat.items()},
        tuple(map(str, names)),
    )


def factor_numbers(
    factors: Mapping[str, Array], names: tuple[str, ...] | None, where: str
) -> tuple[dict[str, Tensor], tuple[str, ...] | None]:
    """Return the factors of each split as whole numbers, and their names.

    Real numbers are replaced by the rank of their value, in ascending order.

    Args:
        factors: factors by split, of shape (count, factors) or (count,).
        names: names of the factors.
        where: name of the data in messages.

    Raises:
        ValueError: if factors are not numbers.

    Warns:
        UserWarning: if a factor of real numbers has a different value for most items; it is
            dropped.
    """
    if not factors:
        return {}, None
    tables = {split: array.reshape(len(array), -1) for split, array in factors.items()}
    every = np.concatenate(list(tables.values()))
    if every.dtype.kind not in "buif":
        raise DataError(f"factors of variation must be numbers, got {every.dtype} in {where}")
    columns: dict[int, dict[str, Array]] = {}
    for column in range(every.shape[1]):
        of_splits = {split: table[:, column] for split, table in tables.items()}
        if every.dtype.kind == "f":
            values = np.unique(every[:, column])
            real = (values % 1 != 0).any()
            if real and len(values) > max(2, min(_MANY, len(every) // 2)):
                warn(
                    f"a factor of variation must have few values, which many items share; column "
                    f"{column} of {where} has {len(values)} for {len(every)} items, and is left "
                    "out; round it"
                )
                continue
            of_splits = {split: np.searchsorted(values, own) for split, own in of_splits.items()}
        columns[column] = of_splits
    if not columns:
        return {}, None
    coded = {
        split: _integers(np.stack([of_splits[split] for of_splits in columns.values()], 1))
        for split in tables
    }
    return coded, None if names is None else tuple(names[column] for column in columns)


def is_factors(labels: Array) -> bool:
    """Return True for an array with several labels per item that is not one-hot."""
    return labels.ndim == 2 and labels.shape[1] > 1 and not _is_one_hot(labels)


def varying(factors: Tensor, names: tuple[str, ...] | None, where: str) -> list[int]:
    """Return the columns of the factors that vary.

    Warns:
        UserWarning: if some are constant, which would leave disentanglement metrics undefined.
    """
    varies = (factors != factors[:1]).any(0).tolist()
    still = [names[i] if names else f"number {i}" for i, one in enumerate(varies) if not one]
    if still:
        warn(
            f"factors of variation of {where} that have one value are left out: {', '.join(still)}"
        )
    return [i for i, one in enumerate(varies) if one]


def _flat(labels: Array) -> Array:
    if labels.ndim == 2 and labels.shape[1] > 1 and _is_one_hot(labels):
        labels = labels.argmax(1)
    labels = labels.reshape(len(labels))
    if labels.dtype.kind == "S":
        return np.char.decode(labels, "utf-8")
    return labels.astype(str) if labels.dtype.kind == "O" else labels


def _is_one_hot(labels: Array) -> bool:
    return labels.dtype.kind in "buif" and bool(
        ((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all()
    )


def _integers(array: Array) -> Tensor:
    return torch.from_numpy(array.astype(np.int64))
