"""Linearised networks: values, Jacobian products and curvatures J' R J of a batch."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_dpvae.nn.batched import Batched

__all__ = [
    "AbstractLinearization",
    "Linearizer",
    "batch_jacobian",
    "push_through",
    "with_slopes",
]

_SMOOTH = (nn.SiLU, nn.Softplus, nn.Tanh)


def batch_jacobian(
    function: Callable[[Tensor], Tensor], z: Float[Tensor, "batch latent"]
) -> Float[Tensor, "latent batch ..."]:
    """Return the derivatives of a row-wise function in each coordinate of z.

    Uses forward-mode differentiation, which takes about the time of L evaluations, and is itself
    differentiable.

    Args:
        function: (batch, L) -> (batch, ...), where each row depends only on the same row.
        z: the points.

    Returns:
        d function(z) / d z_l, of shape (L, batch, ...).

    Example:
        >>> batch_jacobian(torch.square, torch.tensor([[1.0, 2.0]]))
        tensor([[[2., 0.]],
        <BLANKLINE>
                [[0., 4.]]])
    """
    directions = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)

    def derivative(direction: Tensor) -> Tensor:
        return _pushed(function, z, direction.expand_as(z))

    return torch.func.vmap(derivative, randomness="same")(directions)


def _pushed(function: Callable[[Tensor], Tensor], z: Tensor, dz: Tensor) -> Tensor:
    """Return the derivative of a function at z along dz."""
    with warnings.catch_warnings():
        # torch itself triggers this warning at its first forward-mode differentiation.
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
        return torch.func.jvp(function, (z,), (dz,))[1]


class AbstractLinearization(ABC):
    """A network z -> raw linearised at points z: raw(z + dz) = value + J dz, for each datum.

    Attributes:
        value: raw(z), of shape (batch, *out).
    """

    value: Tensor

    @abstractmethod
    def push(self, tangents: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch ..."]:
        """Return J dz, of shape (batch, *out)."""

    @abstractmethod
    def pull(self, cotangents: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch latent"]:
        """Return J' u for u of shape (batch, *out)."""

    @abstractmethod
    def curvature(self, weights: Float[Tensor, "..."]) -> Float[Tensor, "batch latent latent"]:
        """Return J' R J, with R diagonal: of shape (batch, *out), or () for a multiple of I."""


@final
class Linearizer:
    """Make linearizations of a network.

    That of a perceptron is made of products of its weights with the slopes of its units. Slopes of
    ReLUs and leaky ReLUs are masks: what they depend on has no gradient, and the linearization is
    exact around z. Those of SiLUs, softpluses and tanhs have their gradient. Any other network is
    differentiated by ``torch.func``. For R a multiple of I, the curvature of a perceptron takes
    W'W of its last layer, once for all points: a product of width^2 in place of width x outputs.

    Args:
        network: (batch, L) -> (batch, *out), row by row, so without batch norm in training mode.

    Example:
        >>> from pyro_dpvae.nn import ARCHITECTURES
        >>> linearizer = Linearizer(ARCHITECTURES["mlp"].decoder(2, (3, 4), hidden=(5,)))
        >>> there = linearizer.at(torch.zeros(7, 2))
        >>> there.value.shape, there.curvature(torch.ones(())).shape
        (torch.Size([7, 3, 4]), torch.Size([7, 2, 2]))
    """

    def __init__(self, network: Batched) -> None:
        self.network = network
        self.layers = _perceptron(network)

    def at(self, z: Float[Tensor, "batch latent"]) -> AbstractLinearization:
        """Return the linearization at z."""
        if self.layers is None:
            return _Functional(self.network, z)
        return _Perceptron(self, self.layers, z)

    @cached_property
    def gram(self) -> Tensor:
        """W'W of the last layer of a perceptron, of shape (width, width)."""
        assert self.layers is not None
        weight = _linear(self.layers[-1]).weight
        # The first call may be without gradients, and later ones with.
        with torch.enable_grad():
            return weight.T @ weight


@final
class _Functional(AbstractLinearization):
    """A linearization by ``torch.func``, for any network."""

    def __init__(self, network: Batched, z: Tensor) -> None:
        self._network, self._z = network, z
        self.value, self._pull = torch.func.vjp(network, z)[:2]

    def push(self, tangents: Tensor) -> Tensor:
        return _pushed(self._network, self._z, tangents)

    def pull(self, cotangents: Tensor) -> Tensor:
        return self._pull(cotangents.contiguous())[0]

    def curvature(self, weights: Tensor) -> Tensor:
        jacobian = batch_jacobian(self._network, self._z).flatten(2).movedim(0, 1)
        return _weighted_square(jacobian, weights)


@final
class _Perceptron(AbstractLinearization):
    """By products with slopes, for perceptrons."""

    def __init__(self, linearizer: Linearizer, layers: list[nn.Module], z: Tensor) -> None:
        self._linearizer, self._layers = linearizer, layers
        value, self._slopes = with_slopes(layers, z)
        self._out_shape = linearizer.network.out_shape
        self.value = value.unflatten(-1, self._out_shape)

    def push(self, tangents: Tensor) -> Tensor:
        return push_through(self._layers, self._slopes, tangents).unflatten(-1, self._out_shape)

    def pull(self, cotangents: Tensor) -> Tensor:
        u = cotangents.flatten(1)
        slopes = iter(reversed(self._slopes))
        for layer in reversed(self._layers):
            u = u @ layer.weight if isinstance(layer, nn.Linear) else u * next(slopes)
        return u

    def curvature(self, weights: Tensor) -> Tensor:
        inputs = _linear(self._layers[0]).in_features
        directions = torch.eye(inputs, dtype=self.value.dtype, device=self.value.device)
        directions = directions.expand(len(self.value), -1, -1)
        last = _linear(self._layers[-1])
        outputs, width = last.out_features, last.in_features
        # W'W pays off if it costs less than the products it saves in two or more curvatures.
        spared = 2 * len(directions) * inputs * (outputs - width)
        if weights.dim() == 0 and len(self._layers) > 1 and spared > outputs * width:
            half = push_through(self._layers[:-1], self._slopes, directions)
            return weights * ((half @ self._linearizer.gram) @ half.mT)
        jacobian = push_through(self._layers, self._slopes, directions)
        return _weighted_square(jacobian, weights)


def with_slopes(layers: Iterable[nn.Module], z: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return a perceptron at z, and the slopes of its units, layer by layer."""
    slopes = []
    for layer in layers:
        if isinstance(layer, nn.Linear):
            z = layer(z)
        elif isinstance(layer, _SMOOTH):
            z, pull = torch.func.vjp(layer, z)[:2]
            slopes.append(pull(torch.ones_like(z))[0])
        else:
            slope = getattr(layer, "negative_slope", 0.0)
            # As tensors: torch would store the numbers in float32.
            slopes.append(torch.where(z.detach() > 0, z.new_ones(()), z.new_full((), slope)))
            z = layer(z)
    return z, slopes


def push_through(layers: Iterable[nn.Module], slopes: list[Tensor], tangents: Tensor) -> Tensor:
    """Return J t of a perceptron with these slopes.

    Args:
        layers: linear ones and activations.
        slopes: of the units, from :func:`with_slopes`.
        tangents: t, of shape (batch, inputs) or (batch, directions, inputs).
    """
    of_layer = iter(slopes)
    for layer in layers:
        if isinstance(layer, nn.Linear):
            tangents = tangents @ layer.weight.T
        else:
            slope = next(of_layer)
            tangents = tangents * (slope if tangents.dim() == 2 else slope.unsqueeze(-2))
    return tangents


def _weighted_square(jacobian: Tensor, weights: Tensor) -> Tensor:
    """Return J' R J for J' of shape (batch, L, outputs) and R of shape (batch, *out) or ()."""
    weighted = jacobian * (weights.flatten(1).unsqueeze(1) if weights.dim() else weights)
    return weighted @ jacobian.mT


def _linear(layer: nn.Module) -> nn.Linear:
    assert isinstance(layer, nn.Linear)
    return layer


def _perceptron(network: Batched) -> list[nn.Module] | None:
    """Return linear layers with activations between, if that is what the network is."""
    body = network.body
    layers = list(body) if isinstance(body, nn.Sequential) else [body]
    # Hooks and parametrizations change what a module computes.
    plain = not any(
        m._forward_hooks or m._forward_pre_hooks or hasattr(m, "parametrizations")
        for m in (network, body, *layers)
    )
    if layers and type(layers[0]) is nn.Flatten:
        layers = layers[1:]
    if layers and type(layers[-1]) in (nn.Flatten, nn.Unflatten):
        layers = layers[:-1]
    kinds = [type(layer) for layer in layers]
    ends_are_linear = bool(kinds) and kinds[0] is nn.Linear and kinds[-1] is nn.Linear
    if plain and ends_are_linear and set(kinds) <= {nn.Linear, nn.ReLU, nn.LeakyReLU, *_SMOOTH}:
        return layers
    return None
