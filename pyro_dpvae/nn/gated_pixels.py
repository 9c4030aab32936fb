"""A gated PixelCNN for colour: a vertical and a horizontal stack of gated layers."""

from collections.abc import Iterable, Sequence
from functools import partial, reduce
from typing import final

import torch
from torch import Tensor, nn

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.nn.activations import elu
from pyro_dpvae.nn.masked import MaskedConv2d, Offsets, PointwiseConv2d, before, block
from pyro_dpvae.nn.pixelwise import AbstractMaskedNetwork, AbstractPass, Maps

__all__ = ["GatedLayer", "GatedPixelNetwork"]


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


@final
class GatedPixelNetwork(AbstractMaskedNetwork):
    """A gated PixelCNN in the style of PixelCNN++: two stacks, no blind spot, no down-sampling.

    A vertical stack sees the rows above, equally far to both sides. Each of its layers feeds a
    layer of a horizontal stack, which sees its own row. All layers are gated, residual, and take
    the features; pointwise convolutions add up the horizontal ones to the output. With n layers
    and R = (n + 1) (kernel - 1) / 2, a pixel sees the R rows above it up to R columns to either
    side, and R pixels to its left.

    Args:
        image_shape: (C, H, W).
        feature_channels: channels F of the features.
        raw_shape: (R, H, W).
        width: channels of the layers.
        depth: number of layers in each stack.
        kernel: odd side length of the kernels.

    Raises:
        ValueError: if a number is below 1, or the kernel has an even side.

    References:
        van den Oord et al. (2016), Conditional image generation with PixelCNN decoders, section
        2: the stacks. Salimans, Karpathy, Chen, Kingma (2017), PixelCNN++, section 2: gated
        residual layers. Derived: one masked convolution per layer, skips to the output instead of
        down- and up-sampling, no dropout, plain initial weights instead of weight normalisation.

    Example:
        >>> network = GatedPixelNetwork((3, 32, 32), 8, raw_shape=(30, 32, 32), width=16, depth=2)
        >>> network(torch.zeros(2, 3, 32, 32), torch.zeros(2, 8, 32, 32)).shape
        torch.Size([2, 30, 32, 32])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        feature_channels: int,
        *,
        raw_shape: Sequence[int],
        width: int = 64,
        depth: int = 4,
        kernel: int = 3,
    ) -> None:
        super().__init__(image_shape, feature_channels, raw_shape=raw_shape)
        check_positive_int("width", width)
        check_positive_int("depth", depth)
        first = before(kernel)
        reach = kernel // 2
        self.reach = (depth + 1) * reach
        span, up = range(-reach, reach + 1), range(-reach, 0)
        channels = self.image_shape[0]
        self.above = MaskedConv2d(channels, width, offsets=block(up, span))
        self.here = MaskedConv2d(channels, width, offsets=first)
        around = block([*up, 0], span)
        aside = block([0], [*up, 0])
        layer = partial(GatedLayer, width, features=feature_channels)
        self.vertical = nn.ModuleList(layer(offsets=around) for _ in range(depth))
        self.horizontal = nn.ModuleList(layer(offsets=aside, joins=True) for _ in range(depth))
        self.skips = nn.ModuleList(PointwiseConv2d(width, width) for _ in range(depth))
        self.last = PointwiseConv2d(width, self.raw_shape[0])

    @property
    def window(self) -> Offsets:
        """The receptive field: offsets from a pixel at which its raw values see the image."""
        left, up = range(-self.reach, 0), range(-self.reach, 0)
        return block(up, range(-self.reach, self.reach + 1)) | block([0], left)

    def _above(self, run: AbstractPass, context: Maps) -> Maps:
        (features,) = context
        maps = [run.image(self.above)]
        for layer in self.vertical:
            maps.append(layer(run, maps[-1], features))
        return *maps[1:], features

    def _here(self, run: AbstractPass, maps: Maps) -> Tensor:
        *above, features = maps
        y = run.image(self.here)
        outputs = []
        for layer, skip, other in zip(self.horizontal, self.skips, above, strict=True):
            y = layer(run, y, features, other)
            outputs.append(skip(elu(y)))
        return self.last(elu(reduce(torch.add, outputs)))
