"""Base classes of autoregressive pixel networks: raw values of a pixel from earlier pixels."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from pyro_dpvae._checks import check_positive_int, check_shape

__all__ = ["AbstractPixelNetwork", "AbstractPixelSampler"]


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
