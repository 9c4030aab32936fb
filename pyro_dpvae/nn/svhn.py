"""The dpVAE paper's network for SVHN, 32x32 images."""

from collections.abc import Sequence

from torch import nn

from pyro_dpvae.nn.batched import Batched
from pyro_dpvae.nn.fixed import check_size

__all__ = ["svhn_decoder", "svhn_encoder"]

# Kernel, stride and padding of the convolutions that halve, keep and trim an image.
_HALVE, _KEEP, _TRIM = (4, 2, 1), (3, 1, 1), (3, 1, 0)


def svhn_encoder(image_shape: Sequence[int], features: int) -> Batched:
    """Return the dpVAE encoder for 32x32 images: eight convolutions with batch norm and ReLU.

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs, appendix; layer sizes as in the authors' code.
    """
    check_size("svhn", image_shape, 32)
    layers: list[nn.Module] = []
    channels = image_shape[0]
    for kind in (_HALVE, _KEEP, _HALVE, _KEEP, _TRIM, _KEEP, _TRIM, _KEEP):
        layers += [nn.Conv2d(channels, 32, *kind), nn.BatchNorm2d(32), nn.ReLU()]
        channels = 32
    body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, features))
    return Batched(body, in_shape=image_shape, out_shape=(features,))


def svhn_decoder(latent_dim: int, raw_shape: Sequence[int]) -> Batched:
    """Return the dpVAE decoder for 32x32 images, with ReLU and no batch norm.

    References:
        As :func:`svhn_encoder`.
    """
    check_size("svhn", raw_shape, 32)
    layers: list[nn.Module] = [nn.Linear(latent_dim, 512), nn.ReLU(), nn.Unflatten(1, (32, 4, 4))]
    for kind in (_TRIM, _TRIM, _HALVE, _HALVE):
        layers += [nn.ConvTranspose2d(32, 32, *kind), nn.ReLU()]
        layers += [nn.Conv2d(32, 32, *_KEEP), nn.ReLU()]
    layers[-2:] = [nn.Conv2d(32, raw_shape[0], *_KEEP)]
    return Batched(nn.Sequential(*layers), in_shape=(latent_dim,), out_shape=raw_shape)
