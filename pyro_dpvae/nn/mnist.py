"""The dpVAE paper's two networks for MNIST: one for most regularizers, one for FactorVAE."""

from collections.abc import Sequence

from torch import nn

from pyro_dpvae.nn.batched import Batched
from pyro_dpvae.nn.fixed import check_size

__all__ = [
    "mnist_decoder",
    "mnist_encoder",
    "mnist_factor_decoder",
    "mnist_factor_encoder",
]


def mnist_encoder(image_shape: Sequence[int], features: int) -> Batched:
    """Return the dpVAE encoder for 28x28 images: four convolutions, two layers of 256, ReLU.

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs, appendix; layer sizes as in the authors' code.
    """
    check_size("mnist", image_shape, 28)
    body = nn.Sequential(
        *(nn.Conv2d(image_shape[0], 32, 4, 2, 1), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3), nn.ReLU()),
        *(nn.Conv2d(32, 32, 4, 2, 1), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3), nn.ReLU()),
        nn.Flatten(),
        *(nn.Linear(512, 256), nn.ReLU()),
        *(nn.Linear(256, 256), nn.ReLU()),
        nn.Linear(256, features),
    )
    return Batched(body, in_shape=image_shape, out_shape=(features,))


def mnist_decoder(latent_dim: int, raw_shape: Sequence[int]) -> Batched:
    """Return the mirror of :func:`mnist_encoder`.

    References:
        As :func:`mnist_encoder`.
    """
    check_size("mnist", raw_shape, 28)
    body = nn.Sequential(
        *(nn.Linear(latent_dim, 256), nn.ReLU()),
        *(nn.Linear(256, 256), nn.ReLU()),
        *(nn.Linear(256, 512), nn.ReLU()),
        nn.Unflatten(1, (32, 4, 4)),
        *(nn.ConvTranspose2d(32, 32, 3), nn.ReLU()),
        *(nn.ConvTranspose2d(32, 32, 4, 2, 1), nn.ReLU()),
        *(nn.ConvTranspose2d(32, 32, 3), nn.ReLU()),
        nn.ConvTranspose2d(32, raw_shape[0], 4, 2, 1),
    )
    return Batched(body, in_shape=(latent_dim,), out_shape=raw_shape)


def mnist_factor_encoder(image_shape: Sequence[int], features: int) -> Batched:
    """Return the encoder that the authors use for FactorVAE on 28x28 images.

    References:
        As :func:`mnist_encoder`.
    """
    check_size("mnist-factor", image_shape, 28)
    body = nn.Sequential(
        *(nn.Conv2d(image_shape[0], 32, 4, 2, 1), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3), nn.ReLU()),
        *(nn.Conv2d(64, 64, 4, 2, 1), nn.ReLU()),
        *(nn.Conv2d(64, 256, 3), nn.ReLU()),
        *(nn.Conv2d(256, 256, 4), nn.ReLU()),
        nn.Flatten(),
        nn.Linear(256, features),
    )
    return Batched(body, in_shape=image_shape, out_shape=(features,))


def mnist_factor_decoder(latent_dim: int, raw_shape: Sequence[int]) -> Batched:
    """Return the mirror of :func:`mnist_factor_encoder`.

    References:
        As :func:`mnist_encoder`.
    """
    check_size("mnist-factor", raw_shape, 28)
    body = nn.Sequential(
        *(nn.Linear(latent_dim, 256), nn.ReLU()),
        nn.Unflatten(1, (256, 1, 1)),
        *(nn.ConvTranspose2d(256, 256, 4), nn.ReLU()),
        *(nn.ConvTranspose2d(256, 64, 3), nn.ReLU()),
        *(nn.ConvTranspose2d(64, 64, 4, 2, 1), nn.ReLU()),
        *(nn.ConvTranspose2d(64, 32, 3), nn.ReLU()),
        nn.ConvTranspose2d(32, raw_shape[0], 4, 2, 1),
    )
    return Batched(body, in_shape=(latent_dim,), out_shape=raw_shape)
