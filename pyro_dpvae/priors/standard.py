"""The standard normal prior: representation and generation space are one."""

from typing import final

import pyro.distributions as dist
from jaxtyping import Float
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_dpvae.priors._base import AbstractPrior

__all__ = ["StandardNormal"]


@final
class StandardNormal(AbstractPrior):
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

    def to_generation(
        self, z: Float[Tensor, "*batch latent"]
    ) -> tuple[Float[Tensor, "*batch latent"], Float[Tensor, "*batch"]]:
        """Return z itself and a log-determinant of zero."""
        return z, z.new_zeros(z.shape[:-1])

    def to_representation(
        self, z0: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return z0 itself."""
        return z0
