"""Residual convolutional encoders and decoders for images of any size."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.nn._layers import check_image_shape
from pyro_dpvae.nn.batched import Batched

__all__ = ["residual_decoder", "residual_encoder"]


def residual_encoder(image_shape: Sequence[int], *, width: int = 16, depth: int = 1) -> Batched:
    """Build the encoder (*batch, C, H, W) -> (*batch, features).

    Strided convolutions halve the image (rounding up) until its shorter side is at most 7. Each
    doubles the channels, up to eight times ``width``.

    Args:
        image_shape: (C, H, W), with H and W of at least 4.
        width: channels at full size.
        depth: residual blocks at each size.

    Raises:
        ValueError: for data that are not images, or smaller than 4 x 4.

    References:
        He, Zhang, Ren, Sun (2016), Identity Mappings in Deep Residual Networks (the order of
        layers in a block). Zhang, Dauphin, Ma (2019), Fixup Initialization (zeros instead of batch
        norm).

    Example:
        >>> residual_encoder((3, 218, 178)).out_shape
        (5376,)
    """
    shape = check_image_shape("residual", image_shape, least=4)
    sizes = _sizes(shape[1], shape[2])
    channels = _channels(width, len(sizes))
    layers: list[nn.Module] = [nn.Conv2d(shape[0], width, 3, padding=1)]
    layers += _blocks(width, depth)
    for inputs, outputs in pairwise(channels):
        layers.append(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1))
        layers += _blocks(outputs, depth)
    body = nn.Sequential(*layers, nn.SiLU(), nn.Flatten())
    return Batched(body, in_shape=shape, out_shape=(channels[-1] * prod(sizes[-1]),))


def residual_decoder(
    latent_dim: int, raw_shape: Sequence[int], *, width: int = 16, depth: int = 1
) -> Batched:
    """Build the decoder (*batch, latent_dim) -> (*batch, C, H, W), a mirrored encoder.

    Nearest-neighbour upsampling goes back through the encoder's exact sizes.

    Args:
        latent_dim: size of the input.
        raw_shape: (C, H, W), with H and W of at least 4.
        width: channels at full size.
        depth: residual blocks at each size.

    Raises:
        ValueError: for data that are not images, or smaller than 4 x 4.

    Example:
        >>> residual_decoder(2, (1, 28, 20)).out_shape
        (1, 28, 20)
    """
    shape = check_image_shape("residual", raw_shape, least=4)
    sizes = _sizes(shape[1], shape[2])[::-1]
    channels = _channels(width, len(sizes))[::-1]
    start = (channels[0], *sizes[0])
    layers: list[nn.Module] = [
        nn.Linear(latent_dim, start[0] * start[1] * start[2]),
        nn.Unflatten(1, start),
        *_blocks(channels[0], depth),
    ]
    for size, (inputs, outputs) in zip(sizes[1:], pairwise(channels), strict=True):
        layers += [nn.Upsample(size), nn.Conv2d(inputs, outputs, 3, padding=1)]
        layers += _blocks(outputs, depth)
    body = nn.Sequential(*layers, nn.SiLU(), nn.Conv2d(width, shape[0], 3, padding=1))
    return Batched(body, in_shape=(latent_dim,), out_shape=shape)


@final
class _Block(nn.Module):
    """x + conv(silu(conv(silu(x)))); it starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        # Without batch norm, zeros keep the size of the signal constant at any depth.
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return x + self.second(F.silu(self.first(F.silu(x))))


def _blocks(channels: int, depth: int) -> list[nn.Module]:
    return [_Block(channels) for _ in range(check_positive_int("depth", depth))]


def _sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Return the sizes of the image from the full to the smallest."""
    sizes = [(height, width)]
    while min(sizes[-1]) > 7:
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


def _channels(width: int, levels: int) -> list[int]:
    check_positive_int("width", width)
    return [width * 2 ** min(level, 3) for level in range(levels)]
