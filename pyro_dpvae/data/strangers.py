"""Interpretation of a user's splits, and checks of their items."""

from typing import Any, final

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyro_dpvae.data.dataset import Split, first_of, split_shape, split_size
from pyro_dpvae.data.meaning import Meaning, meaning_of
from pyro_dpvae.errors import DataError

__all__ = ["as_items"]

_FEW = 16  # items inspected before the others are read


def as_items(data: Split, *, as_given: bool = False) -> tuple[Meaning, Split]:
    """Return the meaning of a tensor or map-style data set, and its items.

    The decision of a ``DataSet`` is kept. For a user's data set a few evenly spaced items decide,
    and an item that contradicts them raises an error when it is read. In items that are tuples the
    first entry is the data; others, such as labels, become tensors.

    Args:
        data: the tensor or the data set.
        as_given: leave images of real numbers unchanged.

    Raises:
        TypeError: if items are not tensors.
        ValueError: if their numbers cannot be interpreted.
    """
    known = getattr(data, "meaning", None)
    if isinstance(known, Meaning):
        return known, data
    if isinstance(data, Tensor):
        meaning = meaning_of({"split": data}, as_given=as_given)
        return meaning, meaning.items(data)
    split_shape(data)  # raises if items are wrong
    size = split_size(data)
    few = torch.stack([first_of(data[index]) for index in range(0, size, -(-size // _FEW))])
    where = f"a {type(data).__name__}"
    meaning = meaning_of({"items": few}, as_given=as_given, where=where)
    return meaning, _Interpreted(data, meaning, few.dtype)


@final
class _Interpreted(Dataset[Any]):
    def __init__(self, data: Dataset[Any], meaning: Meaning, dtype: torch.dtype) -> None:
        self.data, self.meaning, self.dtype = data, meaning, dtype

    def __len__(self) -> int:
        return split_size(self.data)

    def __getitem__(self, index: int) -> Tensor | tuple[Tensor, ...]:
        whole = self.data[index]
        item = first_of(whole)
        if item.dtype != self.dtype:
            raise DataError(
                f"all items must have one type, got {item.dtype} for item {index} and "
                f"{self.dtype} for earlier ones"
            )
        low, high = (float(bound) for bound in item.double().aminmax())
        images = self.meaning.layout == "images" and self.meaning.is_shades
        if images and (low < 0 or high * self.meaning.scale > self._white):
            raise DataError(
                f"all items must have one range: item {index} lies in [{low:g}, {high:g}], but "
                f"others are {self.meaning.words}; scale all items alike"
            )
        x = self.meaning.items(item[None])[0]
        return x if whole is item else (x, *map(torch.as_tensor, whole[1:]))

    @property
    def _white(self) -> int:
        return 255 if self.meaning.pixels else 1
