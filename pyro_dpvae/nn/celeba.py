"""The dpVAE paper's networks for CelebA."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from pyro_dpvae.nn._sizes import check_image_size
from pyro_dpvae.nn.batched import Batched

__all__ = ["celeba_decoder", "celeba_encoder"]

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
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise([channels, 32, 64, 128, 256, 256]):
        layers += [
            nn.Conv2d(inputs, outputs, 4, stride=2, padding=1),  # 32, 16, 8, 4, 2
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(_SLOPE),
        ]
    body = nn.Sequential(*layers, nn.Flatten())
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
    layers: list[nn.Module] = [
        nn.Linear(latent_dim, 1024),
        nn.LeakyReLU(_SLOPE),
        nn.Unflatten(1, (256, 2, 2)),
    ]
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
