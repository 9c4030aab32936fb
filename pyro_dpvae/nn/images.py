"""Layers of networks, with batch norm or as is fastest on a CPU, and checks of image shapes."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pyro_dpvae._checks import check_shape

__all__ = [
    "FewChannelsTranspose2d",
    "ImageLayers",
    "UnflattenImage",
    "check_image_shape",
    "check_image_size",
    "conv",
    "conv_up",
    "dense",
    "geometry",
    "initialized",
    "transposed",
]

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


# Up to here the product was faster in all of 24 measured shapes, by up to six times.
_FEW = 2


def _laid_out(image: Tensor) -> Tensor:
    """Return the same images, in channels-last layout on a CPU.

    Convolutions keep the layout of their input. In this one, oneDNN computes a thousand images as
    quickly each as a hundred, and gradients of weights in three quarters of the time.
    """
    if image.device.type != "cpu":
        return image
    # Not by ``memory_format``, which ``torch.func.vmap`` refuses. The strides are made anew:
    # those of one channel would fit both layouts, and convolutions would choose the other.
    rows = image.permute(0, 2, 3, 1)
    return rows.flatten(1).unflatten(1, rows.shape[1:]).permute(0, 3, 1, 2)


@final
class ImageLayers(nn.Sequential):
    """``nn.Sequential`` of images (N, C, H, W), in channels-last layout on a CPU.

    Example:
        >>> import torch
        >>> layers = ImageLayers(nn.Conv2d(1, 4, 3), nn.Flatten())
        >>> layers(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 144])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the output of the last layer."""
        return cast(Tensor, super().forward(_laid_out(input)))


@final
class UnflattenImage(nn.Unflatten):
    """``nn.Unflatten`` to (N, C, H, W), in channels-last layout on a CPU.

    Example:
        >>> import torch
        >>> UnflattenImage(3, 2, 2)(torch.zeros(5, 12)).shape
        torch.Size([5, 3, 2, 2])
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__(1, (channels, height, width))

    def forward(self, input: Float[Tensor, "n units"]) -> Float[Tensor, "n c h w"]:
        """Return the images."""
        return _laid_out(super().forward(input))


@final
class FewChannelsTranspose2d(nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` that is fast for one or two output channels."""

    def forward(
        self, input: Float[Tensor, "n channels h w"], output_size: list[int] | None = None
    ) -> Float[Tensor, "n few up across"]:
        """Return the convolution, as ``nn.ConvTranspose2d`` defines it."""
        if output_size is not None or not _has_few(self, input):
            return super().forward(input, output_size)
        image = transposed(self, input)
        return image if self.bias is None else image + self.bias[:, None, None]


def transposed(layer: nn.ConvTranspose2d, image: Float[Tensor, "n channels h w"]) -> Tensor:
    """Return a layer's transposed convolution of images, without its bias.

    With few output channels oneDNN is slow: 4 GFLOP/s for one. There it is a matrix product, whose
    results are added up where they overlap.
    """
    if not _has_few(layer, image):
        options = {**geometry(layer), "output_padding": layer.output_padding}
        return F.conv_transpose2d(image, layer.weight, None, **options)
    stride, kernel, padding = layer.stride, layer.kernel_size, layer.padding
    size = [
        (image.shape[2 + d] - 1) * stride[d] + kernel[d] - 2 * int(padding[d]) for d in range(2)
    ]
    patches = layer.weight.flatten(1).T @ image.flatten(2)
    return F.fold(patches, size, kernel, padding=padding, stride=stride)  # type: ignore[arg-type]


def geometry(layer: nn.Conv2d | nn.ConvTranspose2d) -> dict[str, Any]:
    """Return the arguments with which a layer calls its convolution, besides its weights."""
    names = ("stride", "padding", "dilation", "groups")
    return {name: getattr(layer, name) for name in names}


def _has_few(layer: nn.ConvTranspose2d, image: Tensor) -> bool:
    return (
        layer.out_channels <= _FEW
        and image.device.type == "cpu"
        and layer.groups == 1
        and not any(layer.output_padding)
        and set(layer.dilation) == {1}
    )
