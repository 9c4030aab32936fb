"""Autoregressive images in the plainest way, as an oracle: every pixel from all pixels before."""

from itertools import product

import torch
from torch import Tensor, nn

from pyro_dpvae.decoders import AutoregressiveDecoder
from pyro_dpvae.likelihoods import AbstractLikelihood
from pyro_dpvae.nn import AbstractPixelNetwork, AbstractPixelSampler, Batched


class PlainNetwork(AbstractPixelNetwork):
    """tanh units of every pixel, each of all pixels before and of the features there."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        feature_channels: int,
        *,
        raw_shape: tuple[int, int, int],
        units: int = 6,
    ) -> None:
        super().__init__(image_shape, feature_channels, raw_shape=raw_shape)
        channels, height, width = image_shape
        pixels, raw = height * width, raw_shape[0]
        self.before = nn.Parameter(torch.randn(pixels, units, channels, pixels))
        self.at = nn.Parameter(torch.randn(units, feature_channels))
        self.out = nn.Parameter(torch.randn(raw, units))
        self.register_buffer("mask", torch.ones(pixels, pixels).tril(-1)[:, None, None])

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        self._check_image(x)
        self._check_features(features)
        units = torch.einsum("puci,nci->nup", self.before * self.mask, x.flatten(2))
        units = (units + torch.einsum("uf,nfp->nup", self.at, features.flatten(2))).tanh()
        return torch.einsum("ru,nup->nrp", self.out, units).unflatten(-1, self.raw_shape[1:])

    def sampler(self, features: Tensor) -> AbstractPixelSampler:
        return PlainSampler(self, features)


class PlainSampler(AbstractPixelSampler):
    """The whole parallel pass for each pixel. What is not put yet is NaN-proof noise."""

    def __init__(self, network: AbstractPixelNetwork, features: Tensor) -> None:
        self.network, self.features = network, features
        self.x = features.new_full((len(features), *network.image_shape), 7.0)

    def raw_at(self, row: int, column: int) -> Tensor:
        return self.network(self.x, self.features)[:, :, row, column]

    def put(self, row: int, column: int, pixel: Tensor) -> None:
        self.x[:, :, row, column] = pixel


def plain_decoder(
    likelihood: AbstractLikelihood, *, latent_dim: int = 2, features: int = 2
) -> AutoregressiveDecoder:
    """A decoder of random weights, whose features are tanh of a linear map of z."""
    size = (features, *likelihood.shape[1:])
    body = nn.Sequential(
        nn.Linear(latent_dim, torch.Size(size).numel()), nn.Tanh(), nn.Unflatten(-1, size)
    )
    network = Batched(body, in_shape=(latent_dim,), out_shape=size)
    pixels = PlainNetwork(likelihood.shape, features, raw_shape=likelihood.raw_shape)
    return AutoregressiveDecoder(network, pixels, likelihood=likelihood)


def binary_images(height: int, width: int) -> Tensor:
    """All binary images of a size, of shape (2^(height width), 1, height, width), in float64."""
    images = torch.tensor(list(product([0.0, 1.0], repeat=height * width)), dtype=torch.float64)
    return images.reshape(-1, 1, height, width)
