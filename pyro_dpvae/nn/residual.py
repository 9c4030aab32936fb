"""A residual convolutional network for images of any size."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.nn.batched import Batched

__all__ = ["residual_decoder", "residual_encoder"]

# Halving ends when a side is shorter than this, so that the flattened map stays small.
_SHORTEST = 8


def residual_encoder(
    image_shape: Sequence[int], features: int, *, width: int = 32, depth: int = 1
) -> Batched:
    """Return a residual network from images of any size to a vector.

    Args:
        image_shape: (channels, height, width), each side at least 4.
        features: the size of the output.
        width: the channels of the first level; they double at each halving, up to 4 times.
        depth: the residual blocks of each level.

    Raises:
        ValueError: if the data are no images, or smaller than 4x4.

    References:
        He, Zhang, Ren, Sun (2016), Identity Mappings in Deep Residual Networks: the block.

    Example:
        >>> residual_encoder((1, 28, 20), 16).out_shape
        (16,)
    """
    sizes, channels = _levels(image_shape, width, depth)
    layers: list[nn.Module] = [nn.Conv2d(image_shape[0], channels[0], 3, padding=1)]
    for level, outputs in enumerate(channels):
        if level > 0:
            layers += [nn.Conv2d(channels[level - 1], outputs, 3, stride=2, padding=1)]
        layers += [_Residual(outputs) for _ in range(depth)]
    height, breadth = sizes[-1]
    layers += [nn.SiLU(), nn.Flatten(), nn.Linear(channels[-1] * height * breadth, features)]
    return Batched(nn.Sequential(*layers), in_shape=image_shape, out_shape=(features,))


def residual_decoder(
    latent_dim: int, raw_shape: Sequence[int], *, width: int = 32, depth: int = 1
) -> Batched:
    """Return the mirror of :func:`residual_encoder`, from a vector to images of any size.

    Args:
        latent_dim: the size of the input.
        raw_shape: (channels, height, width), each side at least 4.
        width: the channels of the level of full size.
        depth: the residual blocks of each level.

    Raises:
        ValueError: if the data are no images, or smaller than 4x4.
    """
    sizes, channels = _levels(raw_shape, width, depth)
    height, breadth = sizes[-1]
    layers: list[nn.Module] = [
        nn.Linear(latent_dim, channels[-1] * height * breadth),
        nn.Unflatten(1, (channels[-1], height, breadth)),
    ]
    for level in reversed(range(len(channels))):
        layers += [_Residual(channels[level]) for _ in range(depth)]
        if level > 0:
            layers += [nn.Upsample(size=sizes[level - 1])]
            layers += [nn.Conv2d(channels[level], channels[level - 1], 3, padding=1)]
    layers += [nn.SiLU(), nn.Conv2d(channels[0], raw_shape[0], 3, padding=1)]
    return Batched(nn.Sequential(*layers), in_shape=(latent_dim,), out_shape=raw_shape)


class _Residual(nn.Module):
    """x + conv(silu(conv(silu(x)))), the identity before training."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        silu = torch.nn.functional.silu
        return x + self.second(silu(self.first(silu(x))))


def _levels(
    shape: Sequence[int], width: int, depth: int
) -> tuple[list[tuple[int, int]], list[int]]:
    """Return the size of the map and the channels at each level, from the image down."""
    check_positive_int("width", width)
    check_positive_int("depth", depth)
    if len(shape) != 3 or min(shape[1:]) < 4:
        raise ValueError(
            "network 'residual' takes images of shape (channels, height, width) with sides of "
            f"at least 4, got {tuple(shape)}; use network 'mlp'"
        )
    sizes = [(shape[1], shape[2])]
    while min(sizes[-1]) >= _SHORTEST:
        height, breadth = sizes[-1]
        sizes.append(((height + 1) // 2, (breadth + 1) // 2))
    return sizes, [width * min(2**level, 4) for level in range(len(sizes))]
