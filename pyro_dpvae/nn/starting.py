"""Initial weights that keep the signal of a deep ReLU network at its size."""

import math
from itertools import pairwise

from torch import nn

__all__ = ["he_start"]

_LINEAR = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def he_start(network: nn.Sequential) -> nn.Sequential:
    """Draw the weights before each ReLU from N(0, 2 / n), with biases of 0; return the network.

    n is the number of inputs of an output unit. A layer that no ReLU follows keeps its weights.
    PyTorch's own initial weights have a third of this variance or less: the output of seven such
    layers hardly depends on the input, and a VAE of them decodes every z to the mean of the data
    for hundreds of steps, or for ever.

    References:
        He, Zhang, Ren, Sun (2015), Delving deep into rectifiers, equation 10.

    Example:
        >>> network = he_start(nn.Sequential(nn.Linear(1000, 1000), nn.ReLU()))
        >>> round(network[0].weight.var().item() * 1000, 1)
        2.0
    """
    for layer, after in pairwise(network):
        if isinstance(layer, _LINEAR) and isinstance(after, nn.ReLU):
            nn.init.normal_(layer.weight, std=math.sqrt(2 / _inputs(layer)))
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return network


def _inputs(layer: nn.Module) -> float:
    """Return the number of inputs of an output unit, on average over the output units."""
    assert isinstance(layer, _LINEAR)
    if isinstance(layer, nn.ConvTranspose2d):
        # An input of stride s lies s outputs from the next: of its kernel, an output has 1 / s^2.
        return layer.in_channels * layer.weight[0, 0].numel() / math.prod(layer.stride)
    return float(layer.weight[0].numel())
