"""Architectures by name: an encoder and the decoder that mirrors it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pyro_dpvae.nn.batched import Batched
from pyro_dpvae.nn.celeba import celeba_decoder, celeba_encoder
from pyro_dpvae.nn.mlp import mlp_decoder, mlp_encoder, moons_decoder, moons_encoder
from pyro_dpvae.nn.mnist import (
    mnist_decoder,
    mnist_encoder,
    mnist_factor_decoder,
    mnist_factor_encoder,
)
from pyro_dpvae.nn.residual import residual_decoder, residual_encoder
from pyro_dpvae.nn.svhn import svhn_decoder, svhn_encoder

__all__ = ["ARCHITECTURES", "Architecture", "default_architecture"]


@dataclass(frozen=True)
class Architecture:
    """The two builders of an architecture; their keyword options are the same.

    Args:
        encoder: (shape of a datum, size of the output) -> network.
        decoder: (latent size, shape of the output) -> network.
    """

    encoder: Callable[..., Batched]
    decoder: Callable[..., Batched]


ARCHITECTURES: dict[str, Architecture] = {
    "celeba": Architecture(celeba_encoder, celeba_decoder),
    "mlp": Architecture(mlp_encoder, mlp_decoder),
    "mnist": Architecture(mnist_encoder, mnist_decoder),
    "mnist-factor": Architecture(mnist_factor_encoder, mnist_factor_decoder),
    "moons": Architecture(moons_encoder, moons_decoder),
    "residual": Architecture(residual_encoder, residual_decoder),
    "svhn": Architecture(svhn_encoder, svhn_decoder),
}
"""The architectures by the names of the command line."""

_BY_SHAPE = {(2,): "moons", (1, 28, 28): "mnist", (3, 32, 32): "svhn", (3, 64, 64): "celeba"}


def default_architecture(shape: Sequence[int]) -> str:
    """Return the name of the architecture that suits data of a shape.

    Example:
        >>> default_architecture((1, 28, 28)), default_architecture((3, 48, 40))
        ('mnist', 'residual')
    """
    general = "residual" if len(shape) == 3 and min(shape[1:]) >= 4 else "mlp"
    return _BY_SHAPE.get(tuple(shape), general)
