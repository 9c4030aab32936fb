"""Fully connected encoders and decoders for data of any shape."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from math import prod

from torch import nn

from pyro_dpvae._checks import check_positive_int, check_shape
from pyro_dpvae.nn.batched import Batched

__all__ = ["mlp_decoder", "mlp_encoder", "moons_decoder", "moons_encoder"]

_MOONS_HIDDEN = (100, 50)
# The paper says "leaky ReLU" without the slope; its code passes ``True``, a slope of 1, which
# makes the network linear. 0.01 is our choice, torch's default.
_moons_activation = partial(nn.LeakyReLU, 0.01)


def mlp_encoder(
    image_shape: Sequence[int],
    *,
    hidden: Sequence[int] = (512, 256),
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> Batched:
    """Build a perceptron (*batch, *image_shape) -> (*batch, last hidden width).

    Args:
        image_shape: shape of an item.
        hidden: widths of the layers, from data to features; the decoder mirrors them. If empty,
            the features are the data themselves.
        activation: makes the module after each layer.

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
    body = nn.Sequential(nn.Flatten(), *_perceptron(sizes, activation=activation))
    return Batched(body, in_shape=shape, out_shape=(sizes[-1],))


def mlp_decoder(
    latent_dim: int,
    raw_shape: Sequence[int],
    *,
    hidden: Sequence[int] = (512, 256),
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> Batched:
    """Build a perceptron (*batch, latent_dim) -> (*batch, *raw_shape).

    Args:
        latent_dim: size of the input.
        raw_shape: shape of the raw values of an item.
        hidden: widths of the hidden layers, from data to latents; the decoder mirrors them.
        activation: makes the module after each hidden layer.

    Raises:
        ValueError: if a size is below 1.

    Example:
        >>> mlp_decoder(2, (3, 4), hidden=(5,)).out_shape
        (3, 4)
    """
    shape = check_shape("raw_shape", raw_shape)
    sizes = [latent_dim, *reversed(hidden), prod(shape)]
    layers = _perceptron(sizes, activation=activation)[:-1]
    body = nn.Sequential(*layers, nn.Unflatten(1, shape))
    return Batched(body, in_shape=(latent_dim,), out_shape=shape)


def moons_encoder(image_shape: Sequence[int]) -> Batched:
    """Build the dpVAE paper's encoder for two moons: 100 and 50 units, leaky ReLU (0.01).

    Example:
        >>> sum(p.numel() for p in moons_encoder((2,)).parameters())
        5350
    """
    return mlp_encoder(image_shape, hidden=_MOONS_HIDDEN, activation=_moons_activation)


def moons_decoder(latent_dim: int, raw_shape: Sequence[int]) -> Batched:
    """Build the dpVAE paper's decoder for two moons: 50 and 100 units, leaky ReLU (0.01).

    Example:
        >>> sum(p.numel() for p in moons_decoder(2, (2,)).parameters())
        5452
    """
    return mlp_decoder(latent_dim, raw_shape, hidden=_MOONS_HIDDEN, activation=_moons_activation)


def _perceptron(sizes: Sequence[int], *, activation: Callable[[], nn.Module]) -> list[nn.Module]:
    for size in sizes:
        check_positive_int("every width of the network", size)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation()]
    return layers
