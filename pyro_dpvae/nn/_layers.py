"""Layers of ladders: batch norm and leaky ReLU after every layer except heads."""

from itertools import pairwise

from torch import nn

__all__ = ["conv", "conv_up", "dense", "initialized"]

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
