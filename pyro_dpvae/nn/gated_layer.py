"""Gated residual layers of masked convolutions, with features at each pixel."""

from collections.abc import Iterable
from typing import final

import torch
from torch import Tensor, nn

from pyro_dpvae.nn.activations import elu
from pyro_dpvae.nn.masked import MaskedConv2d, PointwiseConv2d
from pyro_dpvae.nn.pixelwise import AbstractPass

__all__ = ["GatedLayer"]


@final
class GatedLayer(nn.Module):
    """y + a * sigmoid(b), with (a, b) computed from y around the pixel, a map u and features.

    With a masked convolution K and pointwise ones V, W and G,

        (a, b) = W elu(K elu(y) + V elu(u)) + G features.

    W starts at zero.

    Args:
        width: channels of y and u.
        offsets: kernel offsets of K.
        features: channels of the features.
        joins: True if there is a map u.

    References:
        Salimans, Karpathy, Chen, Kingma (2017), PixelCNN++, section 2 and the authors' code.
        Derived: the second convolution W is pointwise, so that a layer extends the receptive field
        by one kernel.
    """

    def __init__(
        self,
        width: int,
        *,
        offsets: Iterable[tuple[int, int]],
        features: int,
        joins: bool = False,
    ) -> None:
        super().__init__()
        self.around = MaskedConv2d(width, width, offsets=offsets)
        self.other = PointwiseConv2d(width, width) if joins else None
        self.gates = PointwiseConv2d(width + features, 2 * width)
        with torch.no_grad():
            self.gates.weight[:, :width] = 0.0

    def forward(
        self, run: AbstractPass, y: Tensor, features: Tensor, other: Tensor | None = None
    ) -> Tensor:
        """Return the layer's output, of the shape of y, for y, the features, and u."""
        h = run(self.around, elu(y))
        if self.other is not None and other is not None:
            h = h + self.other(elu(other))
        a, b = self.gates(torch.cat([elu(h), features], dim=1)).chunk(2, dim=1)
        return y + a * torch.sigmoid(b)
