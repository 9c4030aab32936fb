"""The pairs of encoder and decoder by name, and the choice that suits a shape."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pyro_dpvae._checks import check_shape
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
    """Builders of an encoder and a decoder that go together and take the same options.

    Attributes:
        encoder: ``encoder(image_shape, features, **options)`` builds the network
            (*batch, *image_shape) -> (*batch, features).
        decoder: ``decoder(latent_dim, raw_shape, **options)`` builds the network
            (*batch, latent_dim) -> (*batch, *raw_shape).

    Example:
        >>> pair = ARCHITECTURES["mlp"]
        >>> pair.encoder((1, 8, 8), 4, hidden=(32,)).out_shape
        (4,)
        >>> pair.decoder(2, (1, 8, 8), hidden=(32,)).out_shape
        (1, 8, 8)
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
"""The networks by the names of the command line."""

_PAPER = {(2,): "moons", (1, 28, 28): "mnist", (3, 32, 32): "svhn", (3, 64, 64): "celeba"}


def default_architecture(shape: Sequence[int]) -> str:
    """Return the name of the architecture that suits data of a shape.

    The dpVAE paper's own for its four shapes; otherwise ``residual`` for images of at least
    8 x 8, and ``mlp`` for everything else.

    Raises:
        ValueError: if a dimension is below 1.

    Example:
        >>> [default_architecture(shape) for shape in [(1, 28, 28), (1, 8, 8), (64,)]]
        ['mnist', 'residual', 'mlp']
    """
    shape = check_shape("shape", shape)
    if shape in _PAPER:
        return _PAPER[shape]
    if len(shape) == 3 and min(shape[1:]) >= 8:
        return "residual"
    return "mlp"
