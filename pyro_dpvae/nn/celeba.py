"""The dpVAE paper's network for CelebA, 64x64 images."""

from collections.abc import Sequence

from torch import nn

from pyro_dpvae.nn.batched import Batched
from pyro_dpvae.nn.fixed import check_size

__all__ = ["celeba_decoder", "celeba_encoder"]

# The paper names leaky ReLUs and gives no slope; this is PyTorch's default. (In the authors' code
# the slope comes out as 1, the identity.)
_SLOPE = 0.01


def celeba_encoder(image_shape: Sequence[int], features: int) -> Batched:
    """Return the dpVAE encoder for 64x64 images: five halving convolutions with batch norm.

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs, appendix; layer sizes as in the authors' code.
    """
    check_size("celeba", image_shape, 64)
    layers: list[nn.Module] = []
    inputs = image_shape[0]
    for outputs in (32, 64, 128, 256, 256):
        layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.BatchNorm2d(outputs)]
        layers += [nn.LeakyReLU(_SLOPE)]
        inputs = outputs
    body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, features))
    return Batched(body, in_shape=image_shape, out_shape=(features,))


def celeba_decoder(latent_dim: int, raw_shape: Sequence[int]) -> Batched:
    """Return the dpVAE decoder for 64x64 images: five nearest doublings with convolutions.

    References:
        As :func:`celeba_encoder`.
    """
    check_size("celeba", raw_shape, 64)
    layers: list[nn.Module] = [nn.Linear(latent_dim, 1024), nn.LeakyReLU(_SLOPE)]
    layers += [nn.Unflatten(1, (256, 2, 2))]
    inputs = 256
    for outputs in (256, 128, 64, 32):
        layers += [*_doubled(inputs, outputs), nn.BatchNorm2d(outputs, eps=1e-3)]
        layers += [nn.LeakyReLU(_SLOPE)]
        inputs = outputs
    layers += _doubled(inputs, raw_shape[0])
    return Batched(nn.Sequential(*layers), in_shape=(latent_dim,), out_shape=raw_shape)


def _doubled(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Upsample(scale_factor=2), nn.ReplicationPad2d(1), nn.Conv2d(inputs, outputs, 3)]
