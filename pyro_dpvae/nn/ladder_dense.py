"""Ladders whose latent layers are joined as vectors, for MNIST and for data of any shape."""

from collections.abc import Sequence
from math import prod

from torch import nn

from pyro_dpvae._checks import check_positive_int, check_shape
from pyro_dpvae.nn.batched import Batched
from pyro_dpvae.nn.images import (
    ImageLayers,
    UnflattenImage,
    check_image_size,
    conv,
    conv_up,
    dense,
    initialized,
)
from pyro_dpvae.nn.ladder import (
    GatedSum,
    LadderDecoder,
    LadderEncoder,
    check_latent_dims,
    check_latents,
)

__all__ = [
    "ladder_mlp_decoder",
    "ladder_mlp_encoder",
    "ladder_mnist_decoder",
    "ladder_mnist_encoder",
]


def ladder_mnist_encoder(
    image_shape: Sequence[int], *, latent_dims: Sequence[int] = (2, 2, 2), width: int = 64
) -> Batched:
    """Build the ladder (*batch, C, 28, 28) -> (*batch, features): batch norm, leaky ReLU.

    The bottom latent layer reads the image through its own two convolutions. Two convolutions and
    a hidden layer of 16 ``width`` units lead to the second latent layer, and three such hidden
    layers to each higher one. Each latent layer except the bottom one also has its own two hidden
    layers.

    Args:
        image_shape: (C, 28, 28).
        latent_dims: sizes of the latents, bottom first; the default is the source's.
        width: channels of the first convolutions.

    Raises:
        ValueError: for images that are not 28 x 28, or fewer than two latent layers.

    References:
        Zhao, Song, Ermon (2017), Learning hierarchical features from generative models; layers
        of the authors' code.

    Example:
        >>> ladder_mnist_encoder((1, 28, 28), latent_dims=(2, 2, 2), width=4).out_shape
        (520,)
    """
    channels = check_image_size("ladder-mnist", image_shape, side=28, others="'ladder-mlp'")
    latent_dims = check_latent_dims(latent_dims, network="ladder-mnist")
    flat, units = 2 * width * 49, 16 * check_positive_int("width", width)
    widths = [flat, *(units for _ in latent_dims[1:])]
    body = LadderEncoder(
        [
            ImageLayers(*_down(channels, width), *dense(flat, units)),
            *(dense(units, units, units, units) for _ in latent_dims[2:]),
        ],
        [
            ImageLayers(*_down(channels, width)),
            *(dense(units, units, units) for _ in latent_dims[1:]),
        ],
        latent_dims=latent_dims,
        widths=widths,
    )
    return Batched(initialized(body), in_shape=image_shape, out_shape=(sum(widths),))


def ladder_mnist_decoder(
    latent_dim: int,
    raw_shape: Sequence[int],
    *,
    latent_dims: Sequence[int] = (2, 2, 2),
    width: int = 64,
) -> Batched:
    """Build the ladder (*batch, sum(latent_dims)) -> (*batch, C, 28, 28).

    Three hidden layers of 16 ``width`` units follow each latent layer except the bottom one, from
    the top down, and two transposed convolutions follow the bottom one. Batch norm and leaky ReLU
    (0.1) follow every layer except the last. Joins are gated sums with learned gates, initially
    0.1.

    Args:
        latent_dim: sum(latent_dims).
        raw_shape: (C, 28, 28).
        latent_dims: sizes of the latents, bottom first; the default is the source's.
        width: channels of the second-to-last convolution.

    Raises:
        ValueError: for images that are not 28 x 28, fewer than two latent layers, or another
            latent_dim.

    References:
        Zhao, Song, Ermon (2017); layers of the authors' code, without their final sigmoid, which
        is part of the likelihood here.

    Example:
        >>> ladder_mnist_decoder(6, (1, 28, 28), latent_dims=(2, 2, 2), width=4).out_shape
        (1, 28, 28)
    """
    channels = check_image_size("ladder-mnist", raw_shape, side=28, others="'ladder-mlp'")
    latent_dims = check_latent_dims(latent_dims, network="ladder-mnist")
    units = 16 * check_positive_int("width", width)
    bottom = nn.Sequential(
        *dense(units, 2 * width * 49),
        UnflattenImage(2 * width, 7, 7),
        *conv_up(2 * width, width),  # 14
        nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),  # 28
    )
    body = _vectors_down(latent_dims, units, depth=3, bottom=bottom)
    in_shape = (check_latents(latent_dim, latent_dims),)
    return Batched(initialized(body), in_shape=in_shape, out_shape=raw_shape)


def ladder_mlp_encoder(
    image_shape: Sequence[int],
    *,
    latent_dims: Sequence[int] = (2, 2, 2),
    width: int = 512,
    depth: int = 2,
) -> Batched:
    """Build a fully connected ladder (*batch, *image_shape) -> (*batch, features).

    Batch norm and leaky ReLU (0.1) follow every layer.

    Args:
        image_shape: shape of an item.
        latent_dims: sizes of the latents, bottom first, at least two.
        width: units of a layer.
        depth: number of hidden layers between latent layers, and of each latent layer's own ones.

    Raises:
        ValueError: for fewer than two latent layers.

    References:
        The wiring is that of Zhao, Song, Ermon (2017); the layers are ours, modelled on their
        MNIST network.

    Example:
        >>> ladder_mlp_encoder((3, 4), latent_dims=(1, 2), width=8).out_shape
        (16,)
    """
    shape = check_shape("image_shape", image_shape)
    latent_dims = check_latent_dims(latent_dims, network="ladder-mlp")
    check_positive_int("width", width)
    layers = (width,) * check_positive_int("depth", depth)
    inputs = [prod(shape), *(width for _ in latent_dims[1:])]
    body = LadderEncoder(
        [dense(size, *layers) for size in inputs[:-1]],
        [dense(size, *layers) for size in inputs],
        latent_dims=latent_dims,
        widths=[width for _ in latent_dims],
    )
    flat = nn.Sequential(nn.Flatten(), initialized(body))
    return Batched(flat, in_shape=shape, out_shape=(width * len(latent_dims),))


def ladder_mlp_decoder(
    latent_dim: int,
    raw_shape: Sequence[int],
    *,
    latent_dims: Sequence[int] = (2, 2, 2),
    width: int = 512,
    depth: int = 2,
) -> Batched:
    """Build a fully connected ladder (*batch, sum(latent_dims)) -> (*batch, *raw_shape).

    Batch norm and leaky ReLU (0.1) follow every layer except the last; joins are gated sums.

    Args:
        latent_dim: sum(latent_dims).
        raw_shape: shape of the raw values of an item.
        latent_dims: sizes of the latents, bottom first, at least two.
        width: units of a layer.
        depth: number of hidden layers after each latent layer.

    Raises:
        ValueError: for fewer than two latent layers, or another latent_dim.

    Example:
        >>> ladder_mlp_decoder(3, (3, 4), latent_dims=(1, 2), width=8).out_shape
        (3, 4)
    """
    shape = check_shape("raw_shape", raw_shape)
    latent_dims = check_latent_dims(latent_dims, network="ladder-mlp")
    check_positive_int("width", width)
    layers = (width,) * check_positive_int("depth", depth)
    last = nn.Linear(width, prod(shape))
    bottom = nn.Sequential(*dense(width, *layers), last, nn.Unflatten(1, shape))
    body = _vectors_down(latent_dims, width, depth=depth, bottom=bottom)
    in_shape = (check_latents(latent_dim, latent_dims),)
    return Batched(initialized(body), in_shape=in_shape, out_shape=shape)


def _down(channels: int, width: int) -> list[nn.Module]:
    """Return layers (N, C, 28, 28) -> (N, 98 width)."""
    return [*conv(channels, width), *conv(width, 2 * width), nn.Flatten()]


def _vectors_down(
    latent_dims: tuple[int, ...], units: int, *, depth: int, bottom: nn.Module
) -> LadderDecoder:
    """Return a ladder of vectors, joined by gated sums, above a bottom stage."""
    between = (dense(units, *(units,) * depth) for _ in latent_dims[1:-1])
    return LadderDecoder(
        [bottom, *between, dense(latent_dims[-1], *(units,) * depth)],
        [dense(size, units) for size in latent_dims[:-1]],
        [GatedSum(units) for _ in latent_dims[:-1]],
        latent_dims=latent_dims,
    )
