"""PixelCNN: masked convolutions in residual layers."""

from collections.abc import Sequence
from functools import reduce
from typing import final

from torch import Tensor, nn

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.nn.activations import elu
from pyro_dpvae.nn.masked import MaskedConv2d, Offsets, PointwiseConv2d, before, shifted, up_to
from pyro_dpvae.nn.pixelwise import AbstractMaskedNetwork, AbstractPass, Maps
from pyro_dpvae.nn.weight_norm import normalize_weights

__all__ = ["MaskedPixelNetwork"]


@final
class MaskedPixelNetwork(AbstractMaskedNetwork):
    """PixelCNN: masked convolutions in residual layers, with pointwise residual layers between.

    A full convolution adds the features to the first layer. A mask of type A applies to the image,
    masks of type B to feature maps. To the right, a layer reaches only rows above, so there is a
    blind spot: with kernels of 3, nothing is seen k rows above beyond k columns to the right.
    ``window`` has the exact receptive field.

    Args:
        image_shape: (C, H, W).
        feature_channels: channels F of the features.
        raw_shape: (R, H, W).
        kernels: odd side lengths of the masked kernels.
        width: channels of the layers.
        tied: share the weights of the layers of type B.
        weight_norm: normalise the weights of all layers; see ``started_from_data``.

    Raises:
        ValueError: if a side is even, there is no kernel, or tied layers have different kernels.

    References:
        van den Oord, Kalchbrenner, Kavukcuoglu (2016), Pixel recurrent neural networks, section
        3.5. Chen et al. (2017), Variational lossy autoencoder, experiments on binary images: six
        masked layers of 12 filters of 3 x 3 with tied weights, four pointwise residual layers,
        ELUs. Derived: a residual layer has one masked convolution; the pointwise layers come
        after the first, third and fifth masked one and after the last. The paper normalises
        weights, which is optional here. Ma, Zhou, Hovy (2019), MAE, the authors' code: the small
        network has ``width=64`` and ``kernels=(7, 7, 7, 5, 5, 3, 3)``, in layers with bottlenecks,
        which are omitted here.

    Example:
        >>> import torch
        >>> network = MaskedPixelNetwork((1, 28, 28), 4, raw_shape=(1, 28, 28))
        >>> min(network.window), max(network.window)
        ((-6, -6), (0, -1))
        >>> x, features = torch.zeros(2, 1, 28, 28), torch.zeros(2, 4, 28, 28)
        >>> network(x, features).shape
        torch.Size([2, 1, 28, 28])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        feature_channels: int,
        *,
        raw_shape: Sequence[int],
        kernels: Sequence[int] = (3, 3, 3, 3, 3, 3),
        width: int = 12,
        tied: bool = True,
        weight_norm: bool = False,
    ) -> None:
        super().__init__(image_shape, feature_channels, raw_shape=raw_shape)
        kernels = tuple(kernels)
        check_positive_int("the number of kernels", len(kernels))
        if tied and len(set(kernels[1:])) > 1:
            raise ValueError(
                "tied layers (all except the first) must have kernels of one size, got "
                f"{kernels}; use tied=False"
            )
        self.kernels = kernels
        self.first = MaskedConv2d(self.image_shape[0], width, offsets=before(kernels[0]))
        self.beside = nn.Conv2d(
            feature_channels, width, kernels[0], padding=kernels[0] // 2, bias=False
        )
        sides = kernels[1:2] if tied else kernels[1:]
        layers = [MaskedConv2d(width, width, offsets=up_to(side)) for side in sides]
        # As in the other networks, residual layers start as the identity.
        for parameter in (parameter for layer in layers for parameter in layer.parameters()):
            nn.init.zeros_(parameter)
        self.masked = nn.ModuleList(layers)
        self.pointwise = nn.ModuleList(_Pointwise(width) for _ in range(len(kernels) // 2 + 1))
        self.last = PointwiseConv2d(width, self.raw_shape[0])
        if weight_norm:
            normalize_weights(self)

    @property
    def window(self) -> Offsets:
        """The receptive field: offsets from a pixel at which its raw values see the image."""
        return reduce(shifted, map(up_to, self.kernels[1:]), before(self.kernels[0]))

    def _context(self, features: Tensor) -> Maps:
        return (self.beside(features),)

    def _here(self, run: AbstractPass, maps: Maps) -> Tensor:
        y = run.image(self.first) + maps[0]
        for number in range(len(self.kernels) - 1):
            if number % 2 == 0:
                y = self.pointwise[number // 2](y)
            layer = self.masked[number % len(self.masked)]
            y = y + run(layer, elu(y))  # type: ignore[arg-type]  # no module of another kind
        return self.last(elu(self.pointwise[-1](y)))


@final
class _Pointwise(nn.Module):
    """y + W elu(V elu(y)) at each pixel; it starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = PointwiseConv2d(width, width)
        self.second = PointwiseConv2d(width, width)
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, y: Tensor) -> Tensor:
        return y + self.second(elu(self.first(elu(y))))
