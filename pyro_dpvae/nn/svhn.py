"""The dpVAE paper's networks for SVHN."""

from collections.abc import Sequence

from torch import nn

from pyro_dpvae.nn._sizes import check_image_size
from pyro_dpvae.nn.batched import Batched
from pyro_dpvae.nn.images import UnflattenImage
from pyro_dpvae.nn.starting import he_start

__all__ = ["svhn_decoder", "svhn_encoder"]


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
    body = nn.Sequential(
        *_norm_relu(nn.Conv2d(channels, 32, 4, stride=2, padding=1)),  # 16
        *_norm_relu(nn.Conv2d(32, 32, 3, padding=1)),
        *_norm_relu(nn.Conv2d(32, 32, 4, stride=2, padding=1)),  # 8
        *_norm_relu(nn.Conv2d(32, 32, 3, padding=1)),
        *_norm_relu(nn.Conv2d(32, 32, 3)),  # 6
        *_norm_relu(nn.Conv2d(32, 32, 3, padding=1)),
        *_norm_relu(nn.Conv2d(32, 32, 3)),  # 4
        *_norm_relu(nn.Conv2d(32, 32, 3, padding=1)),
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
        nn.Linear(latent_dim, 512),
        nn.ReLU(),
        UnflattenImage(32, 4, 4),
        nn.ConvTranspose2d(32, 32, 3),  # 6
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 32, 3),  # 8
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 32, 4, stride=2, padding=1),  # 16
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 32, 4, stride=2, padding=1),  # 32
        nn.ReLU(),
        nn.Conv2d(32, channels, 3, padding=1),
    )
    return Batched(he_start(body), in_shape=(latent_dim,), out_shape=raw_shape)


def _norm_relu(convolution: nn.Conv2d) -> tuple[nn.Module, ...]:
    return convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU()
