"""Layers linearised at their inputs: each is a linear map with its adjoint."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pyro_dpvae.nn.images import FewChannelsTranspose2d, UnflattenImage, geometry, transposed

__all__ = ["AbstractLinearMap", "is_known", "linearized", "push_through"]

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
