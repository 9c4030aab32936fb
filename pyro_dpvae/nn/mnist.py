"""The dpVAE paper's networks for MNIST, and those of its FactorVAE."""

from collections.abc import Sequence

from torch import nn

from pyro_dpvae.nn._sizes import check_image_size
from pyro_dpvae.nn.batched import Batched
from pyro_dpvae.nn.images import FewChannelsTranspose2d, UnflattenImage
from pyro_dpvae.nn.starting import he_start

__all__ = [
    "mnist_decoder",
    "mnist_encoder",
    "mnist_factor_decoder",
    "mnist_factor_encoder",
]


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
    body = nn.Sequential(
        nn.Conv2d(channels, 32, 4, stride=2, padding=1),  # 14
        nn.ReLU(),
        nn.Conv2d(32, 32, 3),  # 12
        nn.ReLU(),
        nn.Conv2d(32, 32, 4, stride=2, padding=1),  # 6
        nn.ReLU(),
        nn.Conv2d(32, 32, 3),  # 4
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
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
        nn.Linear(latent_dim, 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, 512),
        nn.ReLU(),
        UnflattenImage(32, 4, 4),
        nn.ConvTranspose2d(32, 32, 3),  # 6
        nn.ReLU(),
        nn.ConvTranspose2d(32, 32, 4, stride=2, padding=1),  # 12
        nn.ReLU(),
        nn.ConvTranspose2d(32, 32, 3),  # 14
        nn.ReLU(),
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
        nn.Conv2d(channels, 32, 4, stride=2, padding=1),  # 14
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),  # 12
        nn.ReLU(),
        nn.Conv2d(64, 64, 4, stride=2, padding=1),  # 6
        nn.ReLU(),
        nn.Conv2d(64, 256, 3),  # 4
        nn.ReLU(),
        nn.Conv2d(256, 256, 4),  # 1
        nn.ReLU(),
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
        nn.Linear(latent_dim, 256),
        nn.ReLU(),
        UnflattenImage(256, 1, 1),
        nn.ConvTranspose2d(256, 256, 4),  # 4
        nn.ReLU(),
        nn.ConvTranspose2d(256, 64, 3),  # 6
        nn.ReLU(),
        nn.ConvTranspose2d(64, 64, 4, stride=2, padding=1),  # 12
        nn.ReLU(),
        nn.ConvTranspose2d(64, 32, 3),  # 14
        nn.ReLU(),
        FewChannelsTranspose2d(32, channels, 4, stride=2, padding=1),  # 28
    )
    return Batched(he_start(body), in_shape=(latent_dim,), out_shape=raw_shape)
