"""The ladder's guide: one pass up an encoder returns q(z_l | x) of every layer."""

from collections.abc import Sequence
from typing import final

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_dpvae._checks import check_shape
from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.guides._base import AbstractGuide
from pyro_dpvae.nn import check_wiring
from pyro_dpvae.sites import PLATE, layer_site

__all__ = ["LadderGuide"]


@final
class LadderGuide(AbstractGuide):
    """The guide q(z | x) = prod_l N(z_l; mu_l(x), diag sigma_l^2(x)), a site for each layer.

    Given the datum, the layers are independent; they share the encoder's path up.

    Args:
        encoder: x -> q(z | x) of the concatenated layers.
        latent_dims: sizes of the layers, bottom first.

    Raises:
        ValueError: if the sizes do not add up to the encoder's, or differ from those of its
            network.

    References:
        Zhao, Song, Ermon (2017), Learning hierarchical features from generative models,
        equation 13.

    Example:
        >>> from pyro_dpvae.nn import LADDERS
        >>> network = LADDERS["ladder-mnist"].encoder((1, 28, 28), latent_dims=(2, 3), width=4)
        >>> guide = LadderGuide(GaussianEncoder(network, 5), (2, 3))
        >>> guide(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 5])
    """

    def __init__(self, encoder: GaussianEncoder, latent_dims: Sequence[int]) -> None:
        latent_dims = check_shape("latent_dims", latent_dims)
        if sum(latent_dims) != encoder.latent_dim:
            raise ValueError(
                "the layers must add up to the encoder's latent_dim, got the sizes "
                f"{latent_dims} and latent_dim={encoder.latent_dim}; build the encoder with "
                f"latent_dim={sum(latent_dims)}"
            )
        check_wiring("latent_dims", latent_dims, encoder)
        super().__init__()
        self.encoder, self.latent_dims = encoder, latent_dims

    def posterior(self, x: Tensor) -> dist.Independent:
        """Return q(z | x) of all layers, concatenated, for x of shape (batch, *data)."""
        return self.encoder(x)

    def forward(self, x: Tensor) -> Tensor:
        """Run the guide on a batch x of shape (batch, *data); return z of shape (batch, L)."""
        q = self.posterior(x).base_dist
        parts = zip(*(part.split(self.latent_dims, -1) for part in (q.loc, q.scale)), strict=True)
        with pyro.plate(PLATE, len(x)):
            z = [
                pyro.sample(layer_site(layer), dist.Normal(loc, scale).to_event(1))
                for layer, (loc, scale) in enumerate(parts, 1)
            ]
        return torch.cat(z, -1)
