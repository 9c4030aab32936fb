"""Weight normalisation of the layers of a network, started from data."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import is_parametrized

from pyro_dpvae.nn.masked import MaskedConv2d

__all__ = ["has_weight_norm", "normalize_weights", "started_from_data"]

_LAYERS = (MaskedConv2d, nn.Conv2d, nn.Linear)
_WHOLE, _RESIDUAL = 1.0, 0.1
_SMALLEST = 1e-5  # standard deviation of outputs that are not constant


def normalize_weights(network: nn.Module) -> None:
    """Give each layer of a network a direction v and a length g per output: weights g v / |v|.

    A layer that starts at zero, such as the last one of a residual block, gets random directions:
    a zero vector has none.

    Args:
        network: its masked and other convolutions and linear layers are changed in place.

    References:
        Salimans, Kingma (2016), Weight normalization, equation 2.

    Example:
        >>> layer = nn.Linear(3, 2)
        >>> normalize_weights(layer)
        >>> sorted(name for name, _ in layer.named_parameters())[1:]
        ['parametrizations.weight.original0', 'parametrizations.weight.original1']
    """
    layers: list[Any] = [one for one in network.modules() if isinstance(one, _LAYERS)]
    for layer in layers:
        residual = bool((layer.weight == 0).any())
        if residual:
            nn.init.normal_(layer.weight, std=_RESIDUAL / layer.weight[0].numel() ** 0.5)
        weight_norm(layer)
        layer.initial_deviation = _RESIDUAL if residual else _WHOLE


def has_weight_norm(network: nn.Module) -> bool:
    """Return True if a layer of a network has normalised weights."""
    return any(map(_is_normalized, network.modules()))


@contextmanager
def started_from_data(network: nn.Module) -> Iterator[None]:
    """Within this context, the first call of each layer with normalised weights sets g and b.

        y = g v . x / |v| + b  has mean 0 and standard deviation 1 over the data, by channel,

    or 0.1 in a layer that ends a residual block, as in the code of PixelCNN++. So one call of the
    network on a few hundred data starts all its layers. A layer without b keeps its mean, and one
    whose outputs are constant its g.

    Args:
        network: has been through :func:`normalize_weights`.

    References:
        Salimans, Kingma (2016), Weight normalization, equations 5 and 6.

    Example:
        >>> layer = nn.Linear(3, 2)
        >>> normalize_weights(layer)
        >>> x = 5 + 2 * torch.randn(500, 3)
        >>> with started_from_data(layer):
        ...     y = layer(x)
        >>> torch.allclose(layer(x).std(0), torch.ones(2), atol=1e-4)
        True
    """
    with ExitStack() as stack:
        for layer in filter(_is_normalized, network.modules()):
            stack.callback(layer.register_forward_hook(_Start()).remove)
        yield


def _is_normalized(layer: nn.Module) -> bool:
    return isinstance(layer, _LAYERS) and is_parametrized(layer, "weight")


class _Start:
    """The hook of a layer; a layer with tied weights is started by its first call."""

    def __init__(self) -> None:
        self._done = False

    @torch.no_grad()
    def __call__(self, layer: Any, args: Any, y: Tensor) -> Tensor | None:
        del args
        if self._done:
            return None
        self._done = True
        channel = -1 if isinstance(layer, nn.Linear) else 1
        rows = y.detach().movedim(channel, -1).flatten(0, -2)
        deviation = rows.std(0)
        factor = torch.where(
            deviation > _SMALLEST, layer.initial_deviation / deviation, torch.ones_like(deviation)
        )
        length = layer.parametrizations.weight.original0
        length.mul_(factor.view(-1, *[1] * (length.dim() - 1)))
        mean = torch.zeros_like(deviation)
        if layer.bias is not None:
            mean = rows.mean(0)
            layer.bias.copy_((layer.bias - mean) * factor)
        return ((y.movedim(channel, -1) - mean) * factor).movedim(-1, channel)
