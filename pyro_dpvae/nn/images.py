"""Layers of convolutional decoders, computed as is fastest on a CPU."""

from typing import Any, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["FewChannelsTranspose2d", "UnflattenImage", "geometry", "transposed"]

# Up to here the product was faster in all of 24 measured shapes, by up to six times.
_FEW = 2


@final
class UnflattenImage(nn.Unflatten):
    """``nn.Unflatten`` to (N, C, H, W), in channels-last layout on a CPU.

    Convolutions keep the layout of their input. In this one, oneDNN computes a thousand images as
    quickly each as a hundred, and gradients of weights in three quarters of the time.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__(1, (channels, height, width))

    def forward(self, input: Float[Tensor, "n units"]) -> Float[Tensor, "n c h w"]:
        """Return the images."""
        image = super().forward(input)
        if image.device.type == "cpu":
            # Not by ``memory_format``, which ``torch.func.vmap`` refuses.
            image = image.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        return image


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
