"""The dpVAE paper's networks for MNIST, SVHN and CelebA, with He's initial weights."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

from torch import nn

from pyro_dpvae.nn.batched import Batched
from pyro_dpvae.nn.images import (
    FewChannelsTranspose2d,
    ImageLayers,
    UnflattenImage,
    check_image_size,
)

__all__ = [
    "celeba_decoder",
    "celeba_encoder",
    "he_start",
    "mnist_decoder",
    "mnist_encoder",
    "mnist_factor_decoder",
    "mnist_factor_encoder",
    "svhn_decoder",
    "svhn_encoder",
]

_LINEAR = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def he_start(network: nn.Sequential) -> nn.Sequential:
    """Draw the weights before each ReLU from N(0, 2 / n), with biases of 0; return the network.

    n is the number of inputs of an output unit, on average over a transposed convolution's outputs
    away from the border. A layer that no ReLU follows keeps its weights.
    PyTorch's own initial weights have a third of this variance or less: the output of seven such
    layers hardly depends on the input, and a VAE of them decodes every z to the mean of the data
    for hundreds of steps, or for ever.

    References:
        He, Zhang, Ren, Sun (2015), Delving deep into rectifiers, equation 10.

    Example:
        >>> network = he_start(nn.Sequential(nn.Linear(1000, 1000), nn.ReLU()))
        >>> round(network[0].weight.var().item() * 1000, 1)
        2.0
    """
    for layer, after in pairwise(network):
        if isinstance(layer, _LINEAR) and isinstance(after, nn.ReLU):
            inputs: float = layer.weight[0].numel()
            if isinstance(layer, nn.ConvTranspose2d):
                # An input of stride s lies s outputs from the next: of its kernel, an output has
                # 1 / s^2, on average over the output units.
                inputs = layer.in_channels * layer.weight[0, 0].numel() / math.prod(layer.stride)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / inputs))
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return network


def mnist_encoder(image_shape: Sequence[int]) -> Batched:
    """Build the encoder (*batch, C, 28, 28) -> (*batch, 256): 4 convolutions, ReLU.

    Raises:
        ValueError: for images that are not 28 x 28.

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs; layers of the authors' code.

    Example:
        >>> sum(p.numel() for p in mnist_encoder((1, 28, 28)).parameters())
        232576
    """
    channels = check_image_size("mnist", image_shape, side=28)
    body = ImageLayers(
        *_stack(
            nn.Conv2d(channels, 32, 4, stride=2, padding=1),  # 14
            nn.Conv2d(32, 32, 3),  # 12
            nn.Conv2d(32, 32, 4, stride=2, padding=1),  # 6
            nn.Conv2d(32, 32, 3),  # 4
        ),
        nn.Flatten(),
        *_stack(nn.Linear(512, 256), nn.Linear(256, 256)),
    )
    return Batched(he_start(body), in_shape=image_shape, out_shape=(256,))


def mnist_decoder(latent_dim: int, raw_shape: Sequence[int]) -> Batched:
    """Build the decoder (*batch, latent_dim) -> (*batch, C, 28, 28): 4 convolutions, ReLU.

    Raises:
        ValueError: for images that are not 28 x 28.

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs; layers of the authors' code.

    Example:
        >>> sum(p.numel() for p in mnist_decoder(2, (1, 28, 28)).parameters())
        233569
    """
    channels = check_image_size("mnist", raw_shape, side=28)
    body = nn.Sequential(
        *_stack(nn.Linear(latent_dim, 256), nn.Linear(256, 256), nn.Linear(256, 512)),
        UnflattenImage(32, 4, 4),
        *_stack(
            nn.ConvTranspose2d(32, 32, 3),  # 6
            nn.ConvTranspose2d(32, 32, 4, stride=2, padding=1),  # 12
            nn.ConvTranspose2d(32, 32, 3),  # 14
        ),
        FewChannelsTranspose2d(32, channels, 4, stride=2, padding=1),  # 28
    )
    return Batched(he_start(body), in_shape=(latent_dim,), out_shape=raw_shape)


def mnist_factor_encoder(image_shape: Sequence[int]) -> Batched:
    """Build the FactorVAE encoder (*batch, C, 28, 28) -> (*batch, 256), ReLU.

    Raises:
        ValueError: for images that are not 28 x 28.

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs; layers of the authors' code.

    Example:
        >>> sum(p.numel() for p in mnist_factor_encoder((1, 28, 28)).parameters())
        1281184
    """
    channels = check_image_size("mnist-factor", image_shape, side=28)
    body = nn.Sequential(
        *_stack(
            nn.Conv2d(channels, 32, 4, stride=2, padding=1),  # 14
            nn.Conv2d(32, 64, 3),  # 12
            nn.Conv2d(64, 64, 4, stride=2, padding=1),  # 6
            nn.Conv2d(64, 256, 3),  # 4
            nn.Conv2d(256, 256, 4),  # 1
        ),
        nn.Flatten(),
    )
    return Batched(he_start(body), in_shape=image_shape, out_shape=(256,))


def mnist_factor_decoder(latent_dim: int, raw_shape: Sequence[int]) -> Batched:
    """Build the FactorVAE decoder (*batch, latent_dim) -> (*batch, C, 28, 28), ReLU.

    Raises:
        ValueError: for images that are not 28 x 28.

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs; layers of the authors' code.

    Example:
        >>> sum(p.numel() for p in mnist_factor_decoder(2, (1, 28, 28)).parameters())
        1281697
    """
    channels = check_image_size("mnist-factor", raw_shape, side=28)
    body = nn.Sequential(
        *_stack(nn.Linear(latent_dim, 256)),
        UnflattenImage(256, 1, 1),
        *_stack(
            nn.ConvTranspose2d(256, 256, 4),  # 4
            nn.ConvTranspose2d(256, 64, 3),  # 6
            nn.ConvTranspose2d(64, 64, 4, stride=2, padding=1),  # 12
            nn.ConvTranspose2d(64, 32, 3),  # 14
        ),
        FewChannelsTranspose2d(32, channels, 4, stride=2, padding=1),  # 28
    )
    return Batched(he_start(body), in_shape=(latent_dim,), out_shape=raw_shape)


def svhn_encoder(image_shape: Sequence[int]) -> Batched:
    """Build the encoder (*batch, C, 32, 32) -> (*batch, 512).

    Eight convolutions of 32 channels, each with batch norm and ReLU.

    Raises:
        ValueError: for images that are not 32 x 32.

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs; layers of the authors' code.

    Example:
        >>> svhn_encoder((3, 32, 32)).out_shape
        (512,)
    """
    channels = check_image_size("svhn", image_shape, side=32)
    body = ImageLayers(
        *_stack(
            nn.Conv2d(channels, 32, 4, stride=2, padding=1),  # 16
            nn.Conv2d(32, 32, 3, padding=1),
            nn.Conv2d(32, 32, 4, stride=2, padding=1),  # 8
            nn.Conv2d(32, 32, 3, padding=1),
            nn.Conv2d(32, 32, 3),  # 6
            nn.Conv2d(32, 32, 3, padding=1),
            nn.Conv2d(32, 32, 3),  # 4
            nn.Conv2d(32, 32, 3, padding=1),
            norm=True,
        ),
        nn.Flatten(),
    )
    return Batched(body, in_shape=image_shape, out_shape=(512,))


def svhn_decoder(latent_dim: int, raw_shape: Sequence[int]) -> Batched:
    """Build the decoder (*batch, latent_dim) -> (*batch, C, 32, 32): ReLU, no batch norm.

    Raises:
        ValueError: for images that are not 32 x 32.

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs; layers of the authors' code.

    Example:
        >>> svhn_decoder(10, (3, 32, 32)).out_shape
        (3, 32, 32)
    """
    channels = check_image_size("svhn", raw_shape, side=32)
    body = nn.Sequential(
        *_stack(nn.Linear(latent_dim, 512)),
        UnflattenImage(32, 4, 4),
        *_stack(
            nn.ConvTranspose2d(32, 32, 3),  # 6
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ConvTranspose2d(32, 32, 3),  # 8
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ConvTranspose2d(32, 32, 4, stride=2, padding=1),  # 16
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ConvTranspose2d(32, 32, 4, stride=2, padding=1),  # 32
        ),
        nn.Conv2d(32, channels, 3, padding=1),
    )
    return Batched(he_start(body), in_shape=(latent_dim,), out_shape=raw_shape)


# The slope of the leaky ReLU is not in the paper; the authors' code uses 1.
_SLOPE = 0.01


def celeba_encoder(image_shape: Sequence[int]) -> Batched:
    """Build the encoder (*batch, C, 64, 64) -> (*batch, 1024).

    Five strided convolutions, each with batch norm and leaky ReLU (0.01).

    Raises:
        ValueError: for images that are not 64 x 64.

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs; layers of the authors' code.

    Example:
        >>> celeba_encoder((3, 64, 64)).out_shape
        (1024,)
    """
    channels = check_image_size("celeba", image_shape, side=64)
    sizes = pairwise([channels, 32, 64, 128, 256, 256])
    layers = [nn.Conv2d(*pair, 4, stride=2, padding=1) for pair in sizes]  # 32, 16, 8, 4, 2
    body = ImageLayers(*_stack(*layers, norm=True, slope=_SLOPE), nn.Flatten())
    return Batched(body, in_shape=image_shape, out_shape=(1024,))


def celeba_decoder(latent_dim: int, raw_shape: Sequence[int]) -> Batched:
    """Build the decoder (*batch, latent_dim) -> (*batch, C, 64, 64).

    Five nearest-neighbour enlargements, each with replication padding and a convolution; batch
    norm and leaky ReLU (0.01) between them.

    Raises:
        ValueError: for images that are not 64 x 64.

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs; layers of the authors' code.

    Example:
        >>> celeba_decoder(32, (3, 64, 64)).out_shape
        (3, 64, 64)
    """
    channels = check_image_size("celeba", raw_shape, side=64)
    layers = [*_stack(nn.Linear(latent_dim, 1024), slope=_SLOPE), UnflattenImage(256, 2, 2)]
    for inputs, outputs in pairwise([256, 256, 128, 64, 32]):
        layers += [
            *_enlarge(inputs, outputs),  # 4, 8, 16, 32
            nn.BatchNorm2d(outputs, eps=1e-3),
            nn.LeakyReLU(_SLOPE),
        ]
    body = nn.Sequential(*layers, *_enlarge(32, channels))  # 64
    return Batched(body, in_shape=(latent_dim,), out_shape=raw_shape)


def _enlarge(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Upsample(scale_factor=2), nn.ReplicationPad2d(1), nn.Conv2d(inputs, outputs, 3)


def _stack(*layers: nn.Module, norm: bool = False, slope: float = 0.0) -> list[nn.Module]:
    """Return layers, each followed by batch norm, if wanted, and a ReLU or leaky ReLU."""
    stack: list[nn.Module] = []
    for layer in layers:
        stack.append(layer)
        if norm:
            stack.append(nn.BatchNorm2d(cast(int, layer.out_channels)))
        stack.append(nn.LeakyReLU(slope) if slope else nn.ReLU())
    return stack
