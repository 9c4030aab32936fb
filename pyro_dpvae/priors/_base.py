"""What every prior is: a module whose call returns p(z), with a map to generation space."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.nn.linearization import batch_jacobian

__all__ = ["AbstractPrior", "LinearizedMap"]


@dataclass(frozen=True)
class LinearizedMap:
    """The map z0 = g(z) to generation space around points z.

    Attributes:
        z0: g(z), of shape (batch, L).
        log_det: log |det dg/dz|, of shape (batch,).
        jacobian: d z0_j / d z_i at [..., i, j], of shape (batch, L, L).
        log_det_slope: d log |det dg/dz| / d z, of shape (batch, L).
    """

    z0: Tensor
    log_det: Tensor
    jacobian: Tensor
    log_det_slope: Tensor


class AbstractPrior(nn.Module, ABC):
    """A prior p(z) over representations, reached from generation space by an invertible map.

    Generation space holds z0 ~ N(0, I); representation space holds z, which encoders infer and
    regularizers act on. With ``z0 = g(z)``,

        log p(z) = log N(g(z); 0, I) + log |det dg/dz|.

    Args:
        latent_dim: the size L of z.

    Raises:
        ValueError: if ``latent_dim`` is below 1.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = check_positive_int("latent_dim", latent_dim)
        self.register_buffer("base_loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("base_scale", torch.ones(latent_dim), persistent=False)

    @abstractmethod
    def forward(self) -> TorchDistributionMixin:
        """Return p(z), of batch shape () and event shape (L,)."""

    @abstractmethod
    def to_generation(
        self, z: Float[Tensor, "*batch latent"]
    ) -> tuple[Float[Tensor, "*batch latent"], Float[Tensor, "*batch"]]:
        """Return z0 = g(z) and log |det dg/dz|."""

    def linearize_generation(self, z: Float[Tensor, "batch latent"]) -> "LinearizedMap":
        """Return g and log |det dg/dz| at points z with their derivatives, for each point."""
        z0, log_det = self.to_generation(z)

        def joined(z: Tensor) -> Tensor:
            z0, log_det = self.to_generation(z)
            return torch.cat([z0, log_det.unsqueeze(-1)], -1)

        derivatives = batch_jacobian(joined, z).movedim(0, 1)
        jacobian, log_det_slope = derivatives.split([z.shape[-1], 1], -1)
        return LinearizedMap(z0, log_det, jacobian, log_det_slope.squeeze(-1))

    @abstractmethod
    def to_representation(
        self, z0: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return z = g^-1(z0)."""
