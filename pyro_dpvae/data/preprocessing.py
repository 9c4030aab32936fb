"""Preprocessing of images: what a pixel means to the likelihood."""

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

from pyro_dpvae._checks import check_choice
from pyro_dpvae.errors import DataError

__all__ = [
    "LOGIT_MARGIN",
    "PREPROCESSING",
    "binarised_bits",
    "check_preprocessing",
    "shades",
    "to_unit",
    "unpacked",
]

LOGIT_MARGIN = 0.05
"""alpha of the logit preprocessing: logit(alpha + (1 - 2 alpha) x), x dequantised."""


def shades(images: Tensor) -> Tensor:
    """Return uint8 levels or float32 shades as shades in [0, 1]."""
    return images if images.is_floating_point() else images.float() / 255


def _grey(images: Tensor, generator: torch.Generator) -> Tensor:
    return shades(images)


def _drawn(images: Tensor, generator: torch.Generator) -> Tensor:
    white = 1 if images.is_floating_point() else 255
    return (_uniform(images, generator) * white < images).float()


def _dequantised(images: Tensor, generator: torch.Generator) -> Tensor:
    levels = images * 255 if images.is_floating_point() else images
    # A u so close to 1 that v + u rounds to the next level would leave [v, v + 1).
    return (levels + _uniform(images, generator).clamp(max=1 - 2**-16)) / 256


def _logit(images: Tensor, generator: torch.Generator) -> Tensor:
    return torch.logit(LOGIT_MARGIN + (1 - 2 * LOGIT_MARGIN) * _dequantised(images, generator))


def _none(vectors: Tensor, generator: torch.Generator) -> Tensor:
    return vectors


PREPROCESSING: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "binary-dynamic": _drawn,
    "binary-static": _grey,  # the pixels were drawn once, as 0 or 255
    "dequantised": _dequantised,
    "grey": _grey,
    "logit": _logit,
    "none": _none,
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
