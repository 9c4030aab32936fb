"""Autoregressive pixel networks of masked convolutions, in one pass or pixel by pixel."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_dpvae._checks import check_positive_int, check_shape
from pyro_dpvae.nn.batched import at_least_float32
from pyro_dpvae.nn.masked import MaskedConv2d, Offsets, RowCache

__all__ = [
    "AbstractMaskedNetwork",
    "AbstractPass",
    "AbstractPixelNetwork",
    "AbstractPixelSampler",
    "Maps",
]


class AbstractPixelNetwork(nn.Module, ABC):
    """A network (x, features) -> raw, where raw at pixel i sees x only at pixels before i.

    Pixels are in raster order: row by row, from left to right. The channels of a pixel enter
    together, after the whole pixel. Features are visible everywhere. With raw values r_i,

        p(x | features) = prod_i p(x_i | r_i(x_1, ..., x_{i-1}, features)).

    Args:
        image_shape: (C, H, W) of x.
        feature_channels: channels F of the features.
        raw_shape: (R, H, W) of the raw values.

    Attributes:
        image_shape: (C, H, W).
        feature_shape: (F, H, W).
        raw_shape: (R, H, W).

    Raises:
        ValueError: if a shape does not have three positive dimensions, or the raw values have
            another height or width than the image.

    References:
        van den Oord, Kalchbrenner, Kavukcuoglu (2016), Pixel recurrent neural networks, equation
        1. Chen et al. (2017), Variational lossy autoencoder, section 3.1, for the features.
    """

    def __init__(
        self, image_shape: Sequence[int], feature_channels: int, *, raw_shape: Sequence[int]
    ) -> None:
        super().__init__()
        channels, height, width = _check_image("image_shape", image_shape)
        raw_channels, *raw_size = _check_image("raw_shape", raw_shape)
        if raw_size != [height, width]:
            raise ValueError(
                f"raw_shape must have the image's height and width {(height, width)}, got "
                f"{tuple(raw_shape)}; use a likelihood for images of shape {tuple(image_shape)}"
            )
        features = check_positive_int("feature_channels", feature_channels)
        self.image_shape = (channels, height, width)
        self.feature_shape = (features, height, width)
        self.raw_shape = (raw_channels, height, width)

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "..."], features: Float[Tensor, "..."]
    ) -> Float[Tensor, "n r h w"]:
        """Return the raw values of all pixels in one pass, at least in float32.

        Args:
            x: images, of shape (N, C, H, W).
            features: the features of each image, of shape (N, F, H, W).

        Raises:
            ValueError: if x or the features have the wrong shape.
        """

    @abstractmethod
    def sampler(self, features: Float[Tensor, "..."]) -> "AbstractPixelSampler":
        """Return a sampler that evaluates the network pixel by pixel, for N images.

        Args:
            features: the features of each image, of shape (N, F, H, W).

        Raises:
            ValueError: if the features have the wrong shape.
        """

    def _check_image(self, x: Tensor) -> None:
        _check_batch("x", x, self.image_shape)

    def _check_features(self, features: Tensor) -> None:
        _check_batch("features", features, self.feature_shape)


class AbstractPixelSampler(ABC):
    """Evaluate a pixel network pixel by pixel, in raster order, without gradients.

    Results of layers are cached, so that a pixel costs no more than one pixel of the parallel
    pass. The network's parameters must not change meanwhile.
    """

    @abstractmethod
    def raw_at(self, row: int, column: int) -> Float[Tensor, "n r"]:
        """Return the raw values at a pixel, given the earlier pixels.

        Raises:
            ValueError: if the pixel is not the next one in raster order.
        """

    @abstractmethod
    def put(self, row: int, column: int, pixel: Float[Tensor, "..."]) -> None:
        """Set the value of a pixel, sampled or observed.

        Args:
            row: row of the pixel.
            column: column of the pixel.
            pixel: its channels in each image, of shape (N, C).

        Raises:
            ValueError: if the pixel is not the next one in raster order, or has the wrong shape.
        """


def _check_image(name: str, shape: Sequence[int]) -> tuple[int, int, int]:
    shape = check_shape(name, shape)
    if len(shape) != 3:
        raise ValueError(
            f"{name} must be (channels, height, width), got {shape}; autoregressive decoders are "
            "for images"
        )
    return shape[0], shape[1], shape[2]


def _check_batch(name: str, values: Tensor, shape: tuple[int, int, int]) -> None:
    if values.ndim != 4 or values.shape[1:] != shape:
        expected = ", ".join(map(str, shape))
        raise ValueError(
            f"{name} must have shape (N, {expected}), got {tuple(values.shape)}; reshape the "
            "data or build the network for their shape"
        )


Maps = tuple[Tensor, ...]
"""Feature maps of shape (N, channels, h, w): of whole images, of a row, or of a pixel."""


class AbstractPass(ABC):
    """Evaluation of masked convolutions: on whole images, or from caches."""

    @abstractmethod
    def image(self, convolution: MaskedConv2d) -> Tensor:
        """Return the convolution of the image."""

    @abstractmethod
    def __call__(self, convolution: MaskedConv2d, y: Tensor) -> Tensor:
        """Return the convolution of a feature map."""


class AbstractMaskedNetwork(AbstractPixelNetwork):
    """A pixel network that connects different pixels by masked convolutions only.

    Subclasses define three parts: ``_context`` maps the features, ``_above`` adds what a row takes
    from the rows above it, and ``_here`` is the rest, which sees its own row. They run once on
    whole images, or on rows and pixels with caches.
    """

    @property
    @abstractmethod
    def window(self) -> Offsets:
        """The receptive field: offsets from a pixel at which its raw values see the image."""

    def _context(self, features: Tensor) -> Maps:
        """Return the maps of the features that the layers read at each pixel."""
        return (features,)

    def _above(self, run: AbstractPass, context: Maps) -> Maps:
        """Return the maps for ``_here``, which see only rows above their pixel."""
        del run
        return context

    @abstractmethod
    def _here(self, run: AbstractPass, maps: Maps) -> Tensor:
        """Return the raw values."""

    def _seen(self, x: Tensor) -> Tensor:
        """Return the form of the image that the layers see, pixel by pixel."""
        return x

    def forward(
        self, x: Float[Tensor, "..."], features: Float[Tensor, "..."]
    ) -> Float[Tensor, "n r h w"]:
        """Return the raw values of all pixels in one pass, at least in float32.

        Args:
            x: images, of shape (N, C, H, W).
            features: the features of each image, of shape (N, F, H, W).

        Raises:
            ValueError: if x or the features have the wrong shape, or different numbers of images.
        """
        self._check_image(x)
        self._check_features(features)
        if len(x) != len(features):
            raise ValueError(
                f"x and features must have the same number of images, got {len(x)} and "
                f"{len(features)}; expand the shared one"
            )
        run = _ParallelPass(self._seen(x))
        context = self._context(_channels_last(features))
        return at_least_float32(self._here(run, self._above(run, context)))

    def sampler(self, features: Float[Tensor, "..."]) -> AbstractPixelSampler:
        """Return a sampler that evaluates the network pixel by pixel, for N images.

        Args:
            features: the features of each image, of shape (N, F, H, W).

        Raises:
            ValueError: if the features have the wrong shape.
        """
        self._check_features(features)
        return _CachedSampler(self, features)


@final
class _ParallelPass(AbstractPass):
    """Evaluate masked convolutions on whole images."""

    def __init__(self, image: Tensor) -> None:
        self._image = image

    def image(self, convolution: MaskedConv2d) -> Tensor:
        # A one-channel image has no definite layout, and later layers would copy the wrong one.
        return _channels_last(convolution(self._image))

    def __call__(self, convolution: MaskedConv2d, y: Tensor) -> Tensor:
        return convolution(y)


@final
class _CachedPass(AbstractPass):
    """Evaluate masked convolutions on parts of a row, using the cached rows before.

    Caches are matched by the order of calls, since convolutions with tied weights are one module.
    """

    def __init__(self, *, batch: int, width: int) -> None:
        self._batch, self._width = batch, width
        self._caches: list[RowCache] = []
        self._images: list[RowCache] = []
        self._next = self._column = self._count = 0

    def begin(self, column: int, count: int) -> None:
        """Start a pass over some pixels of the current row."""
        self._next, self._column, self._count = 0, column, count

    def next_row(self) -> None:
        """Make the next row the current one."""
        for cache in self._caches:
            cache.next_row()

    def put(self, pixel: Tensor, column: int) -> None:
        """Set a pixel of the image, of shape (N, C, 1, 1)."""
        for cache in self._images:
            cache.write(pixel, column)

    def image(self, convolution: MaskedConv2d) -> Tensor:
        known = len(self._caches)
        cache = self._cache(convolution)
        if len(self._caches) > known:
            self._images.append(cache)
        return cache.read(self._column, self._count)

    def __call__(self, convolution: MaskedConv2d, y: Tensor) -> Tensor:
        cache = self._cache(convolution)
        cache.write(y, self._column)
        return cache.read(self._column, self._count)

    def _cache(self, convolution: MaskedConv2d) -> RowCache:
        if self._next == len(self._caches):
            self._caches.append(RowCache(convolution, batch=self._batch, width=self._width))
        self._next += 1
        return self._caches[self._next - 1]


@final
class _CachedSampler(AbstractPixelSampler):
    """Evaluate a masked network pixel by pixel, with caches of the rows within reach."""

    @torch.no_grad()
    def __init__(self, network: AbstractMaskedNetwork, features: Tensor) -> None:
        self._network = network
        self._context = network._context(features)
        self._batch = len(features)
        self._channels, self._height, self._width = network.image_shape
        self._rows = _CachedPass(batch=self._batch, width=self._width)
        self._pixels = _CachedPass(batch=self._batch, width=self._width)
        self._maps: Maps = ()
        self._raw: Tensor | None = None
        self._position = 0

    @torch.no_grad()
    def raw_at(self, row: int, column: int) -> Float[Tensor, "n r"]:
        """Return the raw values at a pixel, given the earlier pixels.

        Raises:
            ValueError: if the pixel is not the next one in raster order.
        """
        self._check_position(row, column)
        if self._raw is None:
            if column == 0:
                self._begin_row(row)
            self._pixels.begin(column, 1)
            maps = tuple(part[..., column : column + 1] for part in self._maps)
            self._raw = at_least_float32(self._network._here(self._pixels, maps)[..., 0, 0])
        return self._raw

    @torch.no_grad()
    def put(self, row: int, column: int, pixel: Float[Tensor, "..."]) -> None:
        """Set the value of a pixel, sampled or observed.

        Args:
            row: row of the pixel.
            column: column of the pixel.
            pixel: its channels in each image, of shape (N, C).

        Raises:
            ValueError: if the pixel is not the next one in raster order, or has the wrong shape.
        """
        if pixel.shape != (self._batch, self._channels):
            raise ValueError(
                f"a pixel must have shape {(self._batch, self._channels)} (channels in each "
                f"image), got {tuple(pixel.shape)}"
            )
        self.raw_at(row, column)  # fills the caches of layers at this pixel
        seen = self._network._seen(pixel[:, :, None, None])
        self._rows.put(seen, column)
        self._pixels.put(seen, column)
        self._raw = None
        self._position += 1

    def _begin_row(self, row: int) -> None:
        self._rows.next_row()
        self._pixels.next_row()
        self._rows.begin(0, self._width)
        context = tuple(part[:, :, row : row + 1] for part in self._context)
        self._maps = self._network._above(self._rows, context)

    def _check_position(self, row: int, column: int) -> None:
        expected = divmod(self._position, self._width)
        if (row, column) != expected or row >= self._height:
            after = f"{expected} comes next" if expected[0] < self._height else "all were put"
            raise ValueError(
                f"pixels must be set once each in raster order, got {(row, column)}, "
                f"where {after}; set all pixels before it, or make a new sampler"
            )


def _channels_last(maps: Tensor) -> Tensor:
    """Return maps in the layout in which convolutions with few channels are fastest."""
    return maps.contiguous(memory_format=torch.channels_last)
