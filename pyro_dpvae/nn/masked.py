"""Masked convolutions, and their evaluation row by row or pixel by pixel from a cache."""

import math
from collections.abc import Iterable
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pyro_dpvae._checks import check_positive_int

__all__ = [
    "MaskedConv2d",
    "Offsets",
    "PointwiseConv2d",
    "RowCache",
    "before",
    "block",
    "shifted",
    "up_to",
]

Offsets = frozenset[tuple[int, int]]
"""Positions (row, column) relative to a pixel: kernel offsets or a receptive field."""


def block(rows: Iterable[int], columns: Iterable[int]) -> Offsets:
    """Return all offsets in the given rows and columns.

    Example:
        >>> sorted(block([-1], range(-1, 2)))
        [(-1, -1), (-1, 0), (-1, 1)]
    """
    columns = list(columns)
    return frozenset((row, column) for row in rows for column in columns)


def before(kernel: int) -> Offsets:
    """Return the kernel offsets before the centre in raster order: a mask of type A.

    Args:
        kernel: odd side length of the kernel.

    Raises:
        ValueError: if the side is even, or 1, where nothing is before the centre.

    References:
        van den Oord, Kalchbrenner, Kavukcuoglu (2016), Pixel recurrent neural networks, section
        3.4.

    Example:
        >>> sorted(before(3))
        [(-1, -1), (-1, 0), (-1, 1), (0, -1)]
    """
    if kernel == 1:
        raise ValueError("a kernel of type A (pixels before the centre) must be at least 3, got 1")
    return up_to(kernel) - {(0, 0)}


def up_to(kernel: int) -> Offsets:
    """Return the kernel offsets up to the centre in raster order: a mask of type B.

    Example:
        >>> sorted(up_to(3) - before(3))
        [(0, 0)]
    """
    if check_positive_int("a kernel's side", kernel) % 2 == 0:
        raise ValueError(f"a kernel's side must be odd to have a centre, got {kernel}")
    reach = kernel // 2
    side = range(-reach, reach + 1)
    return frozenset(offset for offset in block(side, side) if offset <= (0, 0))


def shifted(window: Offsets, by: Offsets) -> Offsets:
    """Return the receptive field of a layer with kernel offsets ``by`` on inputs with ``window``.

    Example:
        >>> sorted(shifted(block([0], [-1]), block([0], [-1, 0])))
        [(0, -2), (0, -1)]
    """
    return frozenset((row + down, column + right) for row, column in window for down, right in by)


@final
class MaskedConv2d(nn.Module):
    """A convolution whose output at pixel i sees the input only at given offsets from i.

    With offsets o and weights W_o,

        y_i = b + sum_o W_o x_{i+o},        x = 0 outside the image.

    Only these offsets have weights. A call inserts them into a kernel that ends with the last row
    of offsets, so that rows below the pixel are not computed.

    Args:
        inputs: channels of x.
        outputs: channels of y.
        offsets: (row, column) relative to the pixel; no row below it.

    Raises:
        ValueError: if there are no offsets, or one is in a row below.

    References:
        van den Oord, Kalchbrenner, Kavukcuoglu (2016), Pixel recurrent neural networks, section
        3.4.

    Example:
        >>> convolution = MaskedConv2d(1, 4, offsets=before(3))
        >>> convolution(torch.zeros(2, 1, 8, 8)).shape, convolution.weight.shape
        (torch.Size([2, 4, 8, 8]), torch.Size([4, 1, 4]))
    """

    positions: Tensor

    def __init__(self, inputs: int, outputs: int, *, offsets: Iterable[tuple[int, int]]) -> None:
        super().__init__()
        self.offsets: Offsets = frozenset(offsets)
        if not self.offsets or max(row for row, _ in self.offsets) > 0:
            raise ValueError(
                "offsets must be positions (row, column) with no row below the pixel's (0), "
                f"got {sorted(self.offsets)}"
            )
        self.inputs = check_positive_int("inputs", inputs)
        self.outputs = check_positive_int("outputs", outputs)
        rows, columns = zip(*self.offsets, strict=True)
        self.above, self.aside = -min(rows), max(map(abs, columns))
        self.size = max(rows) + self.above + 1, 2 * self.aside + 1
        places = [
            (row + self.above) * self.size[1] + column + self.aside
            for row, column in sorted(self.offsets)
        ]
        self.register_buffer("positions", torch.tensor(places), persistent=False)
        # Initialised as nn.Conv2d with as many inputs.
        bound = 1 / math.sqrt(inputs * len(places))
        self.weight = nn.Parameter(torch.empty(outputs, inputs, len(places)))
        self.bias = nn.Parameter(torch.empty(outputs))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def kernel(self) -> Float[Tensor, "outputs inputs height width"]:
        """Return the kernel from the first to the last row of offsets."""
        shape = (self.outputs, self.inputs, self.size[0] * self.size[1])
        empty = self.weight.new_zeros(shape)
        return empty.index_copy(2, self.positions, self.weight).unflatten(2, self.size)

    def forward(self, x: Float[Tensor, "n inputs h w"]) -> Float[Tensor, "n outputs h w"]:
        """Return y at all pixels."""
        # Padded above and below, since a convolution's own padding is the fastest.
        y = F.conv2d(x, self.kernel(), self.bias, padding=(self.above, self.aside))
        return y[:, :, : x.shape[2]]


@final
class PointwiseConv2d(nn.Conv2d):
    """A 1 x 1 convolution.

    Args:
        inputs: input channels.
        outputs: output channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, x: Float[Tensor, "n inputs h w"]) -> Float[Tensor, "n outputs h w"]:
        """Return the outputs at all pixels."""
        if x.shape[2:] != (1, 1):
            return super().forward(x)
        # Faster for a single pixel, where a convolution is mostly overhead.
        return F.linear(x.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None]


@final
class RowCache:
    """A cache of the input rows within reach of a layer's kernel, and the layer's output.

    The current row is the last one in the cache; call ``next_row`` before each row.

    Args:
        convolution: the layer, whose weights must not change meanwhile.
        batch: number of images.
        width: width of the images.

    Example:
        >>> convolution = MaskedConv2d(1, 2, offsets=block([0], [-1, 0]))
        >>> cache, x = RowCache(convolution, batch=1, width=3), torch.rand(1, 1, 1, 3)
        >>> cache.write(x, 0)
        >>> torch.allclose(cache.read(1, 2), convolution(x)[..., 1:])
        True
    """

    def __init__(self, convolution: MaskedConv2d, *, batch: int, width: int) -> None:
        self._kernel = convolution.kernel().detach()
        self._bias = convolution.bias.detach()
        # Columns outside the image are zero, like the padding of the parallel pass.
        self._aside = convolution.aside
        shape = batch, convolution.inputs, convolution.above + 1, width + 2 * self._aside
        self._rows = self._kernel.new_zeros(shape)

    def next_row(self) -> None:
        """Drop the oldest row and start an empty one."""
        self._rows = F.pad(self._rows[:, :, 1:], (0, 0, 0, 1))

    def write(self, values: Float[Tensor, "n inputs 1 w"], column: int) -> None:
        """Write inputs into the current row, starting at a column."""
        start = self._aside + column
        self._rows[:, :, -1:, start : start + values.shape[3]] = values

    def read(self, column: int, width: int) -> Float[Tensor, "n outputs 1 w"]:
        """Return the layer's outputs in the current row, starting at a column."""
        height = self._kernel.shape[2]
        patches = self._rows[:, :, :height, column : column + 2 * self._aside + width]
        if width > 1:
            return F.conv2d(patches, self._kernel, self._bias)
        outputs = F.linear(patches.flatten(1), self._kernel.flatten(1), self._bias)
        return outputs[:, :, None, None]
