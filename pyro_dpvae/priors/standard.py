"""The standard normal prior, whose representation and generation space are the same."""

from typing import final

import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin

from pyro_dpvae.priors._base import AbstractDirectPrior, LinearizedDensity, Points, identities

__all__ = ["StandardNormal"]


@final
class StandardNormal(AbstractDirectPrior):
    """p(z) = N(z; 0, I), the prior of the plain VAE (Kingma & Welling, 2014).

    Args:
        latent_dim: the size L of z.

    Example:
        >>> prior = StandardNormal(3)
        >>> prior().event_shape
        torch.Size([3])
    """

    def forward(self) -> TorchDistributionMixin:
        """Return N(0, I), of batch shape () and event shape (L,)."""
        return dist.Normal(self.base_loc, self.base_scale).to_event(1)

    def linearize_density(self, z: Points) -> LinearizedDensity:
        """Return -z and I."""
        return LinearizedDensity(-z, identities(z))
