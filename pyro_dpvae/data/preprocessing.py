"""Preprocessing: what a pixel means to the likelihood, and the scales of columns."""

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

from pyro_dpvae._checks import check_choice
from pyro_dpvae.data.dataset import DataSet, Split
from pyro_dpvae.errors import DataError

__all__ = [
    "LOGIT_MARGIN",
    "PREPROCESSING",
    "binarised_bits",
    "check_preprocessing",
    "scale_caution",
    "shades",
    "standardise",
    "to_unit",
    "units_of",
    "unpacked",
]

LOGIT_MARGIN = 0.05
"""alpha of the logit preprocessing: logit(alpha + (1 - 2 alpha) x), x dequantised."""


def shades(images: Tensor) -> Tensor:
    """Return uint8 levels or float32 shades as shades in [0, 1]."""
    return images if images.is_floating_point() else images.float() / 255


def _drawn(images: Tensor, generator: torch.Generator) -> Tensor:
    white = 1 if images.is_floating_point() else 255
    return (_uniform(images, generator) * white < images).float()


def _dequantised(images: Tensor, generator: torch.Generator) -> Tensor:
    levels = images * 255 if images.is_floating_point() else images
    # A u so close to 1 that v + u rounds to the next level would leave [v, v + 1).
    return (levels + _uniform(images, generator).clamp(max=1 - 2**-16)) / 256


def _logit(images: Tensor, generator: torch.Generator) -> Tensor:
    return torch.logit(LOGIT_MARGIN + (1 - 2 * LOGIT_MARGIN) * _dequantised(images, generator))


PREPROCESSING: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "binary-dynamic": _drawn,
    "binary-static": lambda images, _: shades(images),  # the pixels were drawn once, as 0 or 255
    "dequantised": _dequantised,
    "grey": lambda images, _: shades(images),
    "logit": _logit,
    "none": lambda vectors, _: vectors,
}
"""Functions from levels v of 0 to 255, or shades v / 255 in [0, 1], to the model's data, by name.

- ``grey``: v / 255, in [0, 1].
- ``binary-static``: 1 with probability v / 255, drawn once per datum, the same in every epoch
  (Larochelle, Murray, 2011).
- ``binary-dynamic``: the same, drawn anew in every epoch.
- ``dequantised``: (v + u) / 256 with u uniform on [0, 1), in [0, 1).
- ``logit``: logit(0.05 + 0.9 x) of the dequantised x, a real number (Dinh, Sohl-Dickstein,
  Bengio, 2017, section 4.1); the model's density is that of these logits.
- ``none``: vectors and sequences, unchanged.
"""


def check_preprocessing(name: str, *, images: bool) -> None:
    """Raise if preprocessing is unknown or does not suit the data.

    Raises:
        ValueError: in both cases.
    """
    check_choice("preprocessing", name, PREPROCESSING)
    if images == (name == "none"):
        rule = (
            "images need another one"
            if images
            else "sequences and vectors need 'none' (or layout='images' to read them as images)"
        )
        raise DataError(f"preprocessing must suit the data, got {name!r}; {rule}")


def binarised_bits(images: Tensor, first_index: int = 0) -> Tensor:
    """Binarise images: each pixel is 1 with the probability of its shade, else 0.

    The draw depends only on the item's index, so every epoch sees the same.

    Args:
        images: images of shape (count, channels, height, width).
        first_index: the index of the first image.

    Returns:
        Packed bits, eight pixels to a byte, of shape (count, bytes), for :func:`unpacked`.
    """
    bits = np.empty((len(images), -(-prod(images.shape[1:]) // 8)), np.uint8)
    for offset, image in enumerate(images):
        drawn = _drawn(image, torch.Generator().manual_seed(first_index + offset))
        bits[offset] = np.packbits(drawn.bool().numpy().ravel())
    return torch.from_numpy(bits)


def unpacked(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """Return uint8 images with levels 0 and 255 from the bits of :func:`binarised_bits`."""
    places = torch.arange(7, -1, -1, dtype=torch.uint8, device=bits.device)
    pixels = (bits[..., None] >> places & 1).flatten(1)[:, : prod(shape)]
    return pixels.view(-1, *shape) * 255


def to_unit(x: Tensor, preprocessing: str) -> Tensor:
    """Return preprocessed data, or a model's means of them, as shades in [0, 1]."""
    if preprocessing == "logit":
        x = (torch.sigmoid(x) - LOGIT_MARGIN) / (1 - 2 * LOGIT_MARGIN)
    return x if preprocessing == "none" else x.clamp(0, 1)


def _uniform(images: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(images.shape, generator=generator, device=images.device)


_USUAL = 0.01, 100.0  # root mean squares that networks and likelihoods cope with
_NAMED = 3


def scale_caution(data: DataSet) -> str | None:
    """Return a warning if columns of vectors or sequences have unusual scales, or one value."""
    if data.is_images or not isinstance(data.train, Tensor):
        return None

    def listed(columns: Sequence[int], sizes: Tensor | None = None) -> str:
        names = [repr(data.columns[one]) if data.columns else str(one) for one in columns[:_NAMED]]
        if sizes is not None:
            worst = zip(columns, names, strict=False)
            names = [f"{float(sizes[one]):.2g} in {name}" for one, name in worst]
        more = len(columns) - _NAMED
        return ", ".join(names) + (f" and others in {more} more columns" if more > 0 else "")

    rows, cautions = data.train.flatten(0, -2), []
    constant = (rows == rows[0]).all(0)
    if constant.any():
        one_value = listed(constant.nonzero()[:, 0].tolist())
        cautions.append(f"should differ between rows, got one value in {one_value}; remove them")
    size = rows.square().mean(0).sqrt()
    unusual = ~constant & (size > 0) & ((size < _USUAL[0]) | (size > _USUAL[1]))
    if unusual.any():
        worst = sorted(unusual.nonzero()[:, 0].tolist(), key=lambda c: -abs(float(size[c].log())))
        cautions.append(
            f"should have values near 1, got typical values of {listed(worst, size)}; use "
            "standardise='all', or scale the columns in the file"
        )
    if not cautions:
        return None
    return f"the columns of {data.name} {'; and they '.join(cautions)}"


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
