"""Pairs of encoder and decoder and pixel networks by name, and the default for a shape of data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pyro_dpvae._checks import check_shape
from pyro_dpvae.nn import dpvae, ladder_conv, ladder_dense, mlp
from pyro_dpvae.nn.batched import Batched
from pyro_dpvae.nn.gated_pixels import GatedPixelNetwork, LocalPixelNetwork
from pyro_dpvae.nn.masked_pixels import MaskedPixelNetwork
from pyro_dpvae.nn.pixelwise import AbstractPixelNetwork

__all__ = [
    "ARCHITECTURES",
    "LADDERS",
    "PIXEL_NETWORKS",
    "Architecture",
    "default_architecture",
    "default_ladder",
]


@dataclass(frozen=True)
class Architecture:
    """Builders of a matching encoder and decoder with the same options.

    Attributes:
        encoder: ``encoder(image_shape, **options)`` builds the network (*batch, *image_shape) ->
            (*batch, features); an encoder's head turns the features into parameters of q(z | x).
        decoder: ``decoder(latent_dim, raw_shape, **options)`` builds the network
            (*batch, latent_dim) -> (*batch, *raw_shape).

    Example:
        >>> pair = ARCHITECTURES["mlp"]
        >>> pair.encoder((1, 8, 8), hidden=(32,)).out_shape
        (32,)
        >>> pair.decoder(2, (1, 8, 8), hidden=(32,)).out_shape
        (1, 8, 8)
    """

    encoder: Callable[..., Batched]
    decoder: Callable[..., Batched]


ARCHITECTURES: dict[str, Architecture] = {
    "celeba": Architecture(dpvae.celeba_encoder, dpvae.celeba_decoder),
    "mlp": Architecture(mlp.mlp_encoder, mlp.mlp_decoder),
    "mnist": Architecture(dpvae.mnist_encoder, dpvae.mnist_decoder),
    "mnist-factor": Architecture(dpvae.mnist_factor_encoder, dpvae.mnist_factor_decoder),
    "moons": Architecture(mlp.moons_encoder, mlp.moons_decoder),
    "residual": Architecture(mlp.residual_encoder, mlp.residual_decoder),
    "svhn": Architecture(dpvae.svhn_encoder, dpvae.svhn_decoder),
}
"""The networks by name."""

LADDERS: dict[str, Architecture] = {
    "ladder-celeba": Architecture(
        ladder_conv.ladder_celeba_encoder, ladder_conv.ladder_celeba_decoder
    ),
    "ladder-mlp": Architecture(ladder_dense.ladder_mlp_encoder, ladder_dense.ladder_mlp_decoder),
    "ladder-mnist": Architecture(
        ladder_dense.ladder_mnist_encoder, ladder_dense.ladder_mnist_decoder
    ),
    "ladder-svhn": Architecture(ladder_conv.ladder_svhn_encoder, ladder_conv.ladder_svhn_decoder),
}
"""The networks with several latent layers, by name; all take ``latent_dims``, bottom first."""

_LADDERS_BY_SIZE = {28: "ladder-mnist", 32: "ladder-svhn", 64: "ladder-celeba"}
_PAPER = {(2,): "moons", (1, 28, 28): "mnist", (3, 32, 32): "svhn", (3, 64, 64): "celeba"}


def default_architecture(shape: Sequence[int]) -> str:
    """Return the name of the default architecture for data of a shape.

    It is the dpVAE paper's for its four shapes, otherwise ``residual`` for images of at least 8 x
    8, and ``mlp`` for everything else.

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


def default_ladder(shape: Sequence[int]) -> str:
    """Return the name of the default ladder for data of a shape.

    It is the ladder paper's for images of its three sizes, with any channels, otherwise
    ``ladder-mlp``. Those of 32 x 32 and 64 x 64 have four latent layers.

    Raises:
        ValueError: if a dimension is below 1.

    Example:
        >>> [default_ladder(shape) for shape in [(1, 28, 28), (3, 32, 32), (64,)]]
        ['ladder-mnist', 'ladder-svhn', 'ladder-mlp']
    """
    shape = check_shape("shape", shape)
    if len(shape) == 3 and shape[1] == shape[2]:
        return _LADDERS_BY_SIZE.get(shape[1], "ladder-mlp")
    return "ladder-mlp"


PIXEL_NETWORKS: dict[str, Callable[..., AbstractPixelNetwork]] = {
    "gated": GatedPixelNetwork,
    "local": LocalPixelNetwork,
    "masked": MaskedPixelNetwork,
}
"""The pixel networks by name."""
