"""Encoders and decoders for any data: perceptrons, and residual networks of images."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pyro_dpvae._checks import check_choice, check_positive_int, check_shape
from pyro_dpvae.nn.activations import ACTIVATIONS, Activation
from pyro_dpvae.nn.batched import Batched
from pyro_dpvae.nn.images import ImageLayers, UnflattenImage, check_image_shape

__all__ = [
    "mlp_decoder",
    "mlp_encoder",
    "moons_decoder",
    "moons_encoder",
    "perceptron",
    "residual_decoder",
    "residual_encoder",
]

_MOONS_HIDDEN = (100, 50)
# The paper says "leaky ReLU" without the slope; its code passes ``True``, which is a slope of 1
# and makes the network linear. 0.01 is our choice, torch's default.
_MOONS_ACTIVATION: Activation = "leaky-relu"


def mlp_encoder(
    image_shape: Sequence[int],
    *,
    hidden: Sequence[int] = (512, 256),
    activation: Activation = "relu",
) -> Batched:
    """Build a perceptron (*batch, *image_shape) -> (*batch, last hidden width).

    Args:
        image_shape: of a datum.
        hidden: widths of the layers, from data to features; the decoder mirrors them. Without
            any, the features are the data themselves.
        activation: what follows each layer. ``silu``, ``softplus`` and ``tanh`` are smooth, which
            a Laplace or semi-amortized guide needs for the gradient of its bound.

    Raises:
        ValueError: if a size is below 1.

    Example:
        >>> mlp_encoder((3, 4), hidden=(5,)).body
        Sequential(
          (0): Flatten(start_dim=1, end_dim=-1)
          (1): Linear(in_features=12, out_features=5, bias=True)
          (2): ReLU()
        )
    """
    shape = check_shape("image_shape", image_shape)
    sizes = [prod(shape), *hidden]
    body = nn.Sequential(nn.Flatten(), *perceptron(sizes, activation=activation))
    return Batched(body, in_shape=shape, out_shape=(sizes[-1],))


def mlp_decoder(
    latent_dim: int,
    raw_shape: Sequence[int],
    *,
    hidden: Sequence[int] = (512, 256),
    activation: Activation = "relu",
) -> Batched:
    """Build a perceptron (*batch, latent_dim) -> (*batch, *raw_shape).

    Args:
        latent_dim: the size of the input.
        raw_shape: of the raw values of a datum.
        hidden: widths of the hidden layers, from data to latents: the decoder mirrors them.
        activation: what follows each hidden layer, as in :func:`mlp_encoder`.

    Raises:
        ValueError: if a size is below 1.

    Example:
        >>> mlp_decoder(2, (3, 4), hidden=(5,)).out_shape
        (3, 4)
    """
    shape = check_shape("raw_shape", raw_shape)
    sizes = [latent_dim, *reversed(hidden), prod(shape)]
    layers = perceptron(sizes, activation=activation)[:-1]
    body = nn.Sequential(*layers, nn.Unflatten(1, shape))
    return Batched(body, in_shape=(latent_dim,), out_shape=shape)


def moons_encoder(image_shape: Sequence[int]) -> Batched:
    """Build the dpVAE paper's encoder for two moons: 100 and 50 units, leaky ReLU (0.01).

    Example:
        >>> sum(p.numel() for p in moons_encoder((2,)).parameters())
        5350
    """
    return mlp_encoder(image_shape, hidden=_MOONS_HIDDEN, activation=_MOONS_ACTIVATION)


def moons_decoder(latent_dim: int, raw_shape: Sequence[int]) -> Batched:
    """Build the dpVAE paper's decoder for two moons: 50 and 100 units, leaky ReLU (0.01).

    Example:
        >>> sum(p.numel() for p in moons_decoder(2, (2,)).parameters())
        5452
    """
    return mlp_decoder(latent_dim, raw_shape, hidden=_MOONS_HIDDEN, activation=_MOONS_ACTIVATION)


def perceptron(
    sizes: Sequence[int], *, activation: Activation | Callable[[], nn.Module]
) -> list[nn.Module]:
    """Return linear layers of these sizes, each followed by an activation."""
    for size in sizes:
        check_positive_int("every width of the network", size)
    if not callable(activation):
        check_choice("activation", activation, ACTIVATIONS)
        activation = ACTIVATIONS[activation]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation()]
    return layers


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
    body = ImageLayers(*layers, nn.SiLU(), nn.Flatten())
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
        UnflattenImage(*start),
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
