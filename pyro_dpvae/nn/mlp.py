"""Multi-layer perceptrons for data of any shape, and the paper's for two moons."""

import math
from collections.abc import Sequence

from torch import nn

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.nn.batched import Batched

__all__ = ["mlp_decoder", "mlp_encoder", "moons_decoder", "moons_encoder"]


def mlp_encoder(
    image_shape: Sequence[int], features: int, *, hidden: Sequence[int] = (400, 400)
) -> Batched:
    """Return a perceptron from data of any shape to a vector.

    Args:
        image_shape: the shape of a datum.
        features: the size of the output.
        hidden: the widths of the hidden layers, from the data's side, with ReLU between.

    Example:
        >>> mlp_encoder((1, 28, 28), 20).out_shape
        (20,)
    """
    body = _perceptron([math.prod(image_shape), *hidden, features], nn.ReLU())
    return Batched(body, in_shape=image_shape, out_shape=(features,))


def mlp_decoder(
    latent_dim: int, raw_shape: Sequence[int], *, hidden: Sequence[int] = (400, 400)
) -> Batched:
    """Return the mirror of :func:`mlp_encoder`, from a vector to data of any shape.

    Args:
        latent_dim: the size of the input.
        raw_shape: the shape of the output.
        hidden: the widths of the hidden layers, from the data's side.
    """
    body = _perceptron([latent_dim, *reversed(hidden), math.prod(raw_shape)], nn.ReLU())
    return Batched(body, in_shape=(latent_dim,), out_shape=raw_shape)


def moons_encoder(image_shape: Sequence[int], features: int) -> Batched:
    """Return the dpVAE paper's encoder of two moons: layers of 100 and 50.

    The paper names leaky ReLUs and gives no slope; 0.01, PyTorch's default, is our choice. (In
    the authors' code the slope comes out as 1, which makes the network linear.)

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs, appendix; layer sizes as in the authors' code.
    """
    body = _perceptron([math.prod(image_shape), 100, 50, features], nn.LeakyReLU(0.01))
    return Batched(body, in_shape=image_shape, out_shape=(features,))


def moons_decoder(latent_dim: int, raw_shape: Sequence[int]) -> Batched:
    """Return the dpVAE paper's decoder of two moons: layers of 50 and 100.

    References:
        As :func:`moons_encoder`.
    """
    body = _perceptron([latent_dim, 50, 100, math.prod(raw_shape)], nn.LeakyReLU(0.01))
    return Batched(body, in_shape=(latent_dim,), out_shape=raw_shape)


def _perceptron(sizes: Sequence[int], activation: nn.Module) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True):
        check_positive_int("every width of the network", outputs)
        layers += [nn.Linear(inputs, outputs), activation]
    return nn.Sequential(*layers[:-1])
