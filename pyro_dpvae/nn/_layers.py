"""Layers of networks, with batch norm and leaky ReLU, and checks of the shapes of their data."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from pyro_dpvae._checks import check_shape

__all__ = ["check_image_shape", "check_image_size", "conv", "conv_up", "dense", "initialized"]

_SLOPE = 0.1
_INITIAL_SCALE = 0.02


def dense(*sizes: int) -> nn.Sequential:
    """Return linear layers of these sizes, (N, first) -> (N, last)."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        # Batch norm provides the bias.
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs)]
        layers.append(nn.LeakyReLU(_SLOPE))
    return nn.Sequential(*layers)


def conv(inputs: int, outputs: int, *, stride: int = 2) -> nn.Sequential:
    """Return a convolution that halves the image; with a stride of 1 it keeps the size."""
    kernel = 4 if stride == 2 else 3
    layer = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.LeakyReLU(_SLOPE))


def conv_up(inputs: int, outputs: int) -> nn.Sequential:
    """Return a transposed convolution that doubles the image."""
    layer = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.LeakyReLU(_SLOPE))


def initialized(network: nn.Module) -> nn.Module:
    """Initialise a network with weights from N(0, 0.02^2) and biases of 0; return it."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=_INITIAL_SCALE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


def check_image_shape(network: str, shape: Sequence[int], *, least: int) -> tuple[int, int, int]:
    """Return ``shape`` as (C, H, W), with H and W of at least ``least``."""
    shape = check_shape("the shape of the data", shape)
    if len(shape) != 3 or min(shape[1:]) < least:
        raise ValueError(
            f"network {network!r} needs images (C, H, W) with H and W of at least {least}, got "
            f"the shape {shape}; use network 'mlp'"
        )
    return shape[0], shape[1], shape[2]


def check_image_size(
    network: str, shape: Sequence[int], *, side: int, others: str = "'residual' or 'mlp'"
) -> int:
    """Return the channels of ``shape``, which must be (C, side, side)."""
    shape = check_shape("the shape of the data", shape)
    if len(shape) != 3 or shape[1:] != (side, side):
        raise ValueError(
            f"network {network!r} needs images of shape (C, {side}, {side}), got {shape}; use "
            f"network {others}"
        )
    return shape[0]
