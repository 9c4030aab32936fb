"""Pixel networks of gated layers: a PixelCNN of two stacks, and one that sees a small window."""

from collections.abc import Iterable, Sequence
from functools import partial, reduce
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.nn.activations import elu
from pyro_dpvae.nn.masked import MaskedConv2d, Offsets, PointwiseConv2d, before, block
from pyro_dpvae.nn.pixelwise import AbstractMaskedNetwork, AbstractPass, Maps
from pyro_dpvae.nn.weight_norm import normalize_weights

__all__ = ["GatedLayer", "GatedPixelNetwork", "LocalPixelNetwork"]


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
        weight_norm: normalise the weights of all layers; see ``started_from_data``.

    Raises:
        ValueError: if a number is below 1, or the kernel has an even side.

    References:
        van den Oord et al. (2016), Conditional image generation with PixelCNN decoders, section
        2: the stacks. Salimans, Karpathy, Chen, Kingma (2017), PixelCNN++, section 2: gated
        residual layers. Derived: one masked convolution per layer, skips to the output instead of
        down- and up-sampling, no dropout. The paper normalises weights, which is optional here.

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
        weight_norm: bool = False,
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
        if weight_norm:
            normalize_weights(self)

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


# The weights of red, green and blue in a grey value (Chen et al. 2017, section 4.3).
_GREY = (0.299, 0.587, 0.114)


@final
class LocalPixelNetwork(AbstractMaskedNetwork):
    """A network whose pixels see only a small window, so that z must encode the rest.

    The window of A columns and B rows is the block of that size directly above the pixel, and the
    ceil((A - 1) / 2) pixels to its left; the block extends equally far to the left. A stack of
    max(B - 1, 1) vertical layers sees the block, and one of ceil((A - 1) / 2) horizontal layers
    the pixels to the left. Their sum passes through gated layers that do not extend the receptive
    field.

    Args:
        image_shape: (C, H, W).
        feature_channels: channels F of the features.
        raw_shape: (R, H, W).
        columns: A.
        rows: B.
        width: channels of the layers.
        depth: number of layers after the two stacks.
        grey: show the window as grey values .299 R + .587 G + .114 B.
        weight_norm: normalise the weights of all layers; see ``started_from_data``.

    Raises:
        ValueError: if a number is below 1, or ``grey`` is set and images do not have three
            channels.

    References:
        Chen et al. (2017), Variational lossy autoencoder, sections 3.1 and 4.3: the window, the
        numbers of layers for windows 4x2, 5x3 and 7x4, gated residual layers. Derived: how the
        window is divided among layers; the stacks join after their last shift, since joined
        earlier they would see more than the window.

    Example:
        >>> network = LocalPixelNetwork((1, 28, 28), 4, raw_shape=(1, 28, 28))
        >>> sorted(network.window)[4:]
        [(-1, -2), (-1, -1), (-1, 0), (-1, 1), (0, -2), (0, -1)]
        >>> x, features = torch.zeros(2, 1, 28, 28), torch.zeros(2, 4, 28, 28)
        >>> network(x, features).shape
        torch.Size([2, 1, 28, 28])
    """

    grey: Tensor | None

    def __init__(
        self,
        image_shape: Sequence[int],
        feature_channels: int,
        *,
        raw_shape: Sequence[int],
        columns: int = 4,
        rows: int = 2,
        width: int = 32,
        depth: int = 2,
        grey: bool = False,
        weight_norm: bool = False,
    ) -> None:
        super().__init__(image_shape, feature_channels, raw_shape=raw_shape)
        if grey and self.image_shape[0] != 3:
            raise ValueError(
                f"grey=True needs images (3, H, W), got {self.image_shape}; use grey=False"
            )
        self.columns = check_positive_int("columns", columns)
        self.rows = check_positive_int("rows", rows)
        check_positive_int("width", width)
        check_positive_int("depth", depth)
        self.register_buffer(
            "grey", torch.tensor(_GREY)[:, None, None] if grey else None, persistent=False
        )
        inputs = 1 if grey else self.image_shape[0]
        # As many pixels to the left as the paper's window has in the pixel's own row.
        left, right = columns // 2, (columns - 1) // 2
        layers = max(rows - 1, 1)
        first, *others = [
            range(-lefts, rights + 1)
            for lefts, rights in zip(_shares(left, layers), _shares(right, layers), strict=True)
        ]
        layer = partial(GatedLayer, width, features=feature_channels)
        self.above = MaskedConv2d(inputs, width, offsets=block(range(-min(rows, 2), 0), first))
        self.left = MaskedConv2d(inputs, width, offsets=block([0], [-1])) if left else None
        self.vertical = nn.ModuleList(layer(offsets=block([-1, 0], span)) for span in others)
        self.horizontal = nn.ModuleList(
            layer(offsets=block([0], [-1, 0])) for _ in range(left - 1)
        )
        self.joint = nn.ModuleList(layer(offsets=block([0], [0])) for _ in range(depth))
        self.last = PointwiseConv2d(width, self.raw_shape[0])
        if weight_norm:
            normalize_weights(self)

    @property
    def window(self) -> Offsets:
        """The receptive field: offsets from a pixel at which its raw values see the image."""
        left, right = self.columns // 2, (self.columns - 1) // 2
        above = block(range(-self.rows, 0), range(-left, right + 1))
        return above | block([0], range(-left, 0))

    def _seen(self, x: Tensor) -> Tensor:
        return x if self.grey is None else (x * self.grey).sum(dim=1, keepdim=True)

    def _above(self, run: AbstractPass, context: Maps) -> Maps:
        (features,) = context
        y = run.image(self.above)
        for layer in self.vertical:
            y = layer(run, y, features)
        return y, features

    def _here(self, run: AbstractPass, maps: Maps) -> Tensor:
        y, features = maps
        if self.left is not None:
            h = run.image(self.left)
            for layer in self.horizontal:
                h = layer(run, h, features)
            y = y + h
        for layer in self.joint:
            y = layer(run, y, features)
        return self.last(elu(y))


def _shares(total: int, parts: int) -> list[int]:
    """Split a number into parts as equal as possible, larger ones first."""
    edges = [-(-total * part // parts) for part in range(parts + 1)]
    return [upper - lower for lower, upper in pairwise(edges)]
