"""Linearised networks: values, Jacobian products and curvatures J' R J, from maps of layers."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import cached_property
from math import prod
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pyro_dpvae.nn.batched import Batched
from pyro_dpvae.nn.images import FewChannelsTranspose2d, UnflattenImage, geometry, transposed

__all__ = [
    "AbstractLinearMap",
    "AbstractLinearization",
    "Linearizer",
    "batch_jacobian",
    "is_known",
    "linearized",
    "push_through",
]

_SMOOTH = (nn.SiLU, nn.Softplus, nn.Tanh)
_PIECEWISE_LINEAR = (nn.ReLU, nn.LeakyReLU)
_RESHAPES = (nn.Flatten, nn.Unflatten, UnflattenImage)
_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d, FewChannelsTranspose2d)
_KNOWN = {nn.Linear, *_CONVOLUTIONS, *_RESHAPES, *_SMOOTH, *_PIECEWISE_LINEAR}


class AbstractLinearMap(ABC):
    """The derivative of a layer at the inputs of a batch: a linear map for each datum."""

    @abstractmethod
    def push(self, tangents: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
        """Return J t, for equally many tangents of each datum, those of one datum together."""

    @abstractmethod
    def pull(self, cotangents: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Return J' u, for one u of each datum."""


def is_known(layer: nn.Module) -> bool:
    """Return True for a layer that :func:`linearized` supports."""
    if type(layer) not in _KNOWN or (isinstance(layer, nn.SiLU) and layer.inplace):
        return False
    if isinstance(layer, nn.Flatten | nn.Unflatten):
        return (layer.start_dim if isinstance(layer, nn.Flatten) else layer.dim) == 1
    if isinstance(layer, nn.ConvTranspose2d):  # else its adjoint has more values than its input
        return all(
            more < step for more, step in zip(layer.output_padding, layer.stride, strict=True)
        )
    return not isinstance(layer, nn.Conv2d) or (
        layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    )


def linearized(
    layers: Iterable[nn.Module], x: Float[Tensor, "batch ..."]
) -> tuple[Float[Tensor, "batch ..."], list[AbstractLinearMap]]:
    """Return a stack of layers at x, and the derivatives of the layers there.

    Those of ReLUs and leaky ReLUs are masks, without gradients. Those of SiLUs, softpluses and
    tanhs have their gradient.

    Example:
        >>> layer = nn.Linear(2, 3)
        >>> value, (there,) = linearized([layer], torch.zeros(5, 2))
        >>> value.shape, there.pull(torch.ones(5, 3)).shape
        (torch.Size([5, 3]), torch.Size([5, 2]))
    """
    maps: list[AbstractLinearMap] = []
    for layer in layers:
        if isinstance(layer, _SMOOTH):
            x, pull = torch.func.vjp(layer, x)[:2]
            maps.append(_Slopes(pull(torch.ones_like(x))[0]))
        elif isinstance(layer, _PIECEWISE_LINEAR):
            slope = getattr(layer, "negative_slope", 0.0)
            # As tensors: torch would store the numbers in float32.
            slopes = torch.where(x.detach() > 0, x.new_ones(()), x.new_full((), slope))
            maps.append(_Slopes(slopes))
            x = layer(x)
        else:
            maps.append(_Fixed(layer, x.shape[1:]))
            x = layer(x)
    return x, maps


def push_through(
    maps: Iterable[AbstractLinearMap], tangents: Float[Tensor, "batch directions inputs"]
) -> Float[Tensor, "batch directions ..."]:
    """Return J t of a stack of layers, for several tangents of each datum."""
    t = tangents.flatten(0, 1)
    for layer in maps:
        t = layer.push(t)
    return t.unflatten(0, tangents.shape[:2])


@final
class _Slopes(AbstractLinearMap):
    """Of units, each with its own input."""

    def __init__(self, slopes: Float[Tensor, "batch ..."]) -> None:
        self._slopes = slopes

    def push(self, tangents: Tensor) -> Tensor:
        slopes = self._slopes
        if len(tangents) == len(slopes):
            return tangents * slopes
        return (tangents.unflatten(0, (len(slopes), -1)) * slopes.unsqueeze(1)).flatten(0, 1)

    def pull(self, cotangents: Tensor) -> Tensor:
        return cotangents * self._slopes


@final
class _Fixed(AbstractLinearMap):
    """Of a layer whose derivative is everywhere the same: an affine one, or a reshaping."""

    def __init__(self, layer: nn.Module, in_shape: torch.Size) -> None:
        self._layer, self._in_shape = layer, in_shape

    def push(self, tangents: Tensor) -> Tensor:
        layer = self._layer
        if isinstance(layer, nn.Linear):
            return tangents @ layer.weight.T
        if isinstance(layer, nn.Conv2d):
            return F.conv2d(tangents, layer.weight, None, **geometry(layer))
        if isinstance(layer, nn.ConvTranspose2d):
            return transposed(layer, tangents)
        return layer(tangents)

    def pull(self, cotangents: Tensor) -> Tensor:
        layer = self._layer
        if isinstance(layer, nn.Linear):
            return cotangents @ layer.weight
        if isinstance(layer, nn.ConvTranspose2d):
            return F.conv2d(cotangents, layer.weight, None, **geometry(layer))
        if isinstance(layer, nn.Conv2d):
            return _conv2d_adjoint(layer, cotangents, size=self._in_shape[1:])
        return cotangents.reshape(len(cotangents), *self._in_shape)


def _conv2d_adjoint(layer: nn.Conv2d, cotangents: Tensor, *, size: torch.Size) -> Tensor:
    """Return the adjoint of a convolution of images of this size."""
    stride, padding, dilation = layer.stride, layer.padding, layer.dilation
    # The last inputs, which a stride may leave out.
    rest = [
        size[d]
        - (cotangents.shape[2 + d] - 1) * stride[d]
        + 2 * int(padding[d])
        - dilation[d] * (layer.kernel_size[d] - 1)
        - 1
        for d in range(2)
    ]
    return F.conv_transpose2d(
        cotangents, layer.weight, None, **geometry(layer), output_padding=rest
    )


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
    def transposed_jacobian(self) -> Float[Tensor, "batch latent outputs"]:
        """Return J'."""

    def curvature(self, weights: Float[Tensor, "..."]) -> Float[Tensor, "batch latent latent"]:
        """Return J' R J, with R diagonal: of shape (batch, *out), or () for a multiple of I."""
        return _weighted_square(self.transposed_jacobian(), weights)

    def normal_equations(
        self, weights: Float[Tensor, "..."], cotangents: Float[Tensor, "batch ..."]
    ) -> tuple[Float[Tensor, "batch latent latent"], Float[Tensor, "batch latent"]]:
        """Return J' R J and J' u, both from one J."""
        jacobian = self.transposed_jacobian()
        pulled = jacobian @ cotangents.flatten(1).unsqueeze(-1)
        return _weighted_square(jacobian, weights), pulled.squeeze(-1)


@final
class Linearizer:
    """Make linearizations of a network.

    That of a stack of linear layers, convolutions, reshapings and activations is the product of
    those of its layers. Slopes of ReLUs and leaky ReLUs are masks: what they depend on has no
    gradient, and the linearization is exact around z. Those of SiLUs, softpluses and tanhs have
    their gradient. Any other network is differentiated by ``torch.func``. For R a multiple of I,
    the curvature of a perceptron takes W'W of its last layer, once for all points: a product of
    width^2 in place of width x outputs.

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
        self.layers = _layers(network)
        # The last layer and its place, if it is linear, besides reshapings of its outputs.
        self.last: int | None = None
        self.last_layer: nn.Linear | None = None
        for place, layer in enumerate(self.layers or ()):
            if not isinstance(layer, nn.Flatten | nn.Unflatten):
                self.last_layer = layer if isinstance(layer, nn.Linear) else None
                self.last = None if self.last_layer is None else place

    def at(self, z: Float[Tensor, "batch latent"]) -> AbstractLinearization:
        """Return the linearization at z."""
        if self.layers is None:
            return _Functional(self.network, z)
        return _Layered(self, self.layers, z)

    @cached_property
    def gram(self) -> Tensor:
        """W'W of the last layer of a perceptron, of shape (width, width)."""
        assert self.last_layer is not None
        weight = self.last_layer.weight
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

    def transposed_jacobian(self) -> Tensor:
        return batch_jacobian(self._network, self._z).flatten(2).movedim(0, 1)


@final
class _Layered(AbstractLinearization):
    """The product of the linearizations of layers."""

    def __init__(self, linearizer: Linearizer, layers: list[nn.Module], z: Tensor) -> None:
        self._linearizer, self._inputs = linearizer, z.shape[-1]
        self.value, self._maps = linearized(layers, z)

    def push(self, tangents: Tensor) -> Tensor:
        return push_through(self._maps, tangents.unsqueeze(1)).squeeze(1)

    def pull(self, cotangents: Tensor) -> Tensor:
        for layer in reversed(self._maps):
            cotangents = layer.pull(cotangents)
        return cotangents

    def transposed_jacobian(self) -> Tensor:
        return push_through(self._maps, self._directions()).flatten(2)

    def curvature(self, weights: Tensor) -> Tensor:
        if not self._takes_gram(weights):
            return super().curvature(weights)
        half = push_through(self._maps[: self._linearizer.last], self._directions()).flatten(2)
        return weights * ((half @ self._linearizer.gram) @ half.mT)

    def normal_equations(self, weights: Tensor, cotangents: Tensor) -> tuple[Tensor, Tensor]:
        if not self._takes_gram(weights):
            return super().normal_equations(weights, cotangents)
        return self.curvature(weights), self.pull(cotangents)

    def _directions(self) -> Tensor:
        directions = torch.eye(self._inputs, dtype=self.value.dtype, device=self.value.device)
        return directions.expand(len(self.value), -1, -1)

    def _takes_gram(self, weights: Tensor) -> bool:
        """Return True if W'W of the last layer costs less than it saves in two curvatures."""
        last = self._linearizer.last_layer
        if weights.dim() or not self._linearizer.last or last is None:
            return False
        outputs, width = last.weight.shape
        spared = 2 * len(self.value) * self._inputs * (outputs - width)
        return outputs == prod(self.value.shape[1:]) and spared > outputs * width


def _weighted_square(jacobian: Tensor, weights: Tensor) -> Tensor:
    """Return J' R J for J' of shape (batch, L, outputs) and R of shape (batch, *out) or ()."""
    weighted = jacobian * (weights.flatten(1).unsqueeze(1) if weights.dim() else weights)
    return weighted @ jacobian.mT


def _layers(network: Batched) -> list[nn.Module] | None:
    """Return the layers of a network, if it is a stack of known ones."""
    body = network.body
    layers = list(body) if isinstance(body, nn.Sequential) else [body]
    # Hooks and parametrizations change what a module computes.
    plain = not any(
        m._forward_hooks or m._forward_pre_hooks or hasattr(m, "parametrizations")
        for m in (network, body, *layers)
    )
    return layers if plain and all(map(is_known, layers)) else None
