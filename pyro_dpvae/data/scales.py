"""Scales of columns: a caution where they are far from 1, and columns that are standardised."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pyro_dpvae._checks import check_choice
from pyro_dpvae.data.dataset import DataSet, Split
from pyro_dpvae.errors import DataError

__all__ = ["scale_caution", "standardise", "units_of"]

_USUAL = 0.01, 100.0  # root mean squares that networks and likelihoods cope with
_NAMED = 3


def scale_caution(data: DataSet) -> str | None:
    """Return a warning if columns of vectors or sequences in memory have unusual scales."""
    if data.is_images or not isinstance(data.train, Tensor):
        return None
    size = data.train.flatten(0, -2).square().mean(0).sqrt()
    bad = ((size > 0) & ((size < _USUAL[0]) | (size > _USUAL[1]))).nonzero()[:, 0].tolist()
    if not bad:
        return None
    worst = sorted(bad, key=lambda column: -abs(float(size[column].log())))[:_NAMED]
    named = [
        f"{float(size[column]):.2g} in {repr(data.columns[column]) if data.columns else column}"
        for column in worst
    ]
    more = f" and others in {len(bad) - _NAMED} more columns" if len(bad) > _NAMED else ""
    return (
        f"the columns of {data.name} should have values near 1, got typical values of "
        f"{', '.join(named)}{more}; use standardise='all', or scale the columns in the file"
    )


def units_of(
    train: Split, which: str, *, columns: Sequence[str] | None, where: str
) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of columns, by which they are standardised.

    Args:
        train: the training data, vectors or sequences.
        which: ``"all"``, or the names of columns, separated by commas.
        columns: the names of all columns, if they have names.
        where: name of the data in messages.

    Returns:
        What is subtracted from each column and what it is divided by then, each of shape
        (columns,): 0 and 1 for other columns, and 1 for a constant column.

    Raises:
        ValueError: for an unknown column, and for images or data that are not in memory.
    """
    if not isinstance(train, Tensor) or train.ndim > 3:
        raise DataError(
            "standardise applies to vectors and sequences in memory, got images or a large file "
            f"in {where}; leave it out"
        )
    scale, centre = torch.std_mean(train.flatten(0, -2), 0, correction=0)
    chosen = torch.full_like(scale, which == "all", dtype=torch.bool)
    for name in () if which == "all" else which.split(","):
        check_choice("standardise", name, ["all", *(columns or ())])
        chosen[list(columns or ()).index(name)] = True
    return centre.where(chosen, 0.0), scale.where(chosen & (scale > 0), 1.0)


def standardise(splits: Mapping[str, Split], units: tuple[Tensor, Tensor]) -> None:
    """Standardise the columns of all splits, in place."""
    for split in {id(split): split for split in splits.values()}.values():
        if not isinstance(split, Tensor):
            raise DataError("standardised columns must be in memory, got a large file; split it")
        split.sub_(units[0]).div_(units[1])
