"""The layout of images in networks changes no value, and is the one that is fast on a CPU."""

import pytest
import torch
from torch import nn

from pyro_dpvae.nn import ARCHITECTURES
from pyro_dpvae.nn.images import ImageLayers, UnflattenImage

_SHAPES = {"mnist": (1, 28, 28), "svhn": (3, 32, 32), "celeba": (3, 64, 64), "residual": (1, 9, 8)}


@pytest.mark.parametrize("channels", [1, 3])
def test_convolutions_get_and_return_channels_last(channels: int) -> None:
    convolution = nn.Conv2d(channels, 5, 3)
    layers = ImageLayers(convolution)
    image = torch.randn(2, channels, 8, 7)
    found = layers(image)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, convolution(image))
    raw = UnflattenImage(channels, 8, 7)(image.flatten(1))
    assert torch.equal(raw, image)
    assert convolution(raw).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", _SHAPES)
def test_encoders_and_decoders_compute_in_that_layout(name: str) -> None:
    shape, networks = _SHAPES[name], ARCHITECTURES[name]
    outputs: list[torch.Tensor] = []
    encoder, decoder = networks.encoder(shape), networks.decoder(2, shape)
    for layer in (*encoder.modules(), *decoder.modules()):
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda *args: outputs.append(args[-1]))
    encoder(torch.rand(2, *shape))
    decoder(torch.randn(2, 2))
    assert outputs
    assert all(one.is_contiguous(memory_format=torch.channels_last) for one in outputs)
