"""Fully connected encoders and decoders for data of any shape."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

from torch import nn

from pyro_dpvae._checks import check_choice, check_positive_int, check_shape
from pyro_dpvae.nn.activations import ACTIVATIONS, Activation
from pyro_dpvae.nn.batched import Batched

__all__ = ["mlp_decoder", "mlp_encoder", "moons_decoder", "moons_encoder", "perceptron"]

_MOONS_HIDDEN = (100, 50)
# The paper says "leaky ReLU" without the slope; its code passes ``True``, which is a slope of 1
# and makes the network linear. 0.01 is our choice, torch's default.
_MOONS_ACTIVATION: Activation = "leaky-relu"


def mlp_encoder(
    image_shape: Sequence[int],
    *,
    hidden: Sequence[int] = (512, 256),
    activation: Activation = "relu",
) -> Batched:
    """Build a perceptron (*batch, *image_shape) -> (*batch, last hidden width).

    Args:
        image_shape: of a datum.
        hidden: widths of the layers, from data to features; the decoder mirrors them. Without
            any, the features are the data themselves.
        activation: what follows each layer. ``silu``, ``softplus`` and ``tanh`` are smooth, which
            a Laplace or semi-amortized guide needs for the gradient of its bound.

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
    body = nn.Sequential(nn.Flatten(), *perceptron(sizes, activation=activation))
    return Batched(body, in_shape=shape, out_shape=(sizes[-1],))


def mlp_decoder(
    latent_dim: int,
    raw_shape: Sequence[int],
    *,
    hidden: Sequence[int] = (512, 256),
    activation: Activation = "relu",
) -> Batched:
    """Build a perceptron (*batch, latent_dim) -> (*batch, *raw_shape).

    Args:
        latent_dim: the size of the input.
        raw_shape: of the raw values of a datum.
        hidden: widths of the hidden layers, from data to latents: the decoder mirrors them.
        activation: what follows each hidden layer, as in :func:`mlp_encoder`.

    Raises:
        ValueError: if a size is below 1.

    Example:
        >>> mlp_decoder(2, (3, 4), hidden=(5,)).out_shape
        (3, 4)
    """
    shape = check_shape("raw_shape", raw_shape)
    sizes = [latent_dim, *reversed(hidden), prod(shape)]
    layers = perceptron(sizes, activation=activation)[:-1]
    body = nn.Sequential(*layers, nn.Unflatten(1, shape))
    return Batched(body, in_shape=(latent_dim,), out_shape=shape)


def moons_encoder(image_shape: Sequence[int]) -> Batched:
    """Build the dpVAE paper's encoder for two moons: 100 and 50 units, leaky ReLU (0.01).

    Example:
        >>> sum(p.numel() for p in moons_encoder((2,)).parameters())
        5350
    """
    return mlp_encoder(image_shape, hidden=_MOONS_HIDDEN, activation=_MOONS_ACTIVATION)


def moons_decoder(latent_dim: int, raw_shape: Sequence[int]) -> Batched:
    """Build the dpVAE paper's decoder for two moons: 50 and 100 units, leaky ReLU (0.01).

    Example:
        >>> sum(p.numel() for p in moons_decoder(2, (2,)).parameters())
        5452
    """
    return mlp_decoder(latent_dim, raw_shape, hidden=_MOONS_HIDDEN, activation=_MOONS_ACTIVATION)


def perceptron(
    sizes: Sequence[int], *, activation: Activation | Callable[[], nn.Module]
) -> list[nn.Module]:
    """Return linear layers of these sizes, each followed by an activation."""
    for size in sizes:
        check_positive_int("every width of the network", size)
    if not callable(activation):
        check_choice("activation", activation, ACTIVATIONS)
        activation = ACTIVATIONS[activation]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation()]
    return layers
