"""The base classes of priors, with a map to generation space, and the standard normal."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, final

import pyro.distributions as dist
import torch
from jaxtyping import Float, Int
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.nn.linearization import batch_jacobian

__all__ = [
    "AbstractDirectPrior",
    "AbstractPrior",
    "LinearizedDensity",
    "LinearizedMap",
    "Matrices",
    "Points",
    "StandardNormal",
    "Values",
    "identities",
]

Points = Float[Tensor, "*batch latent"]
Values = Float[Tensor, "*batch"]
Matrices = Float[Tensor, "*batch latent latent"]


@dataclass(frozen=True)
class LinearizedMap:
    """The map z0 = g(z) to generation space around points z.

    Attributes:
        z0: g(z), of shape (batch, L).
        log_det: log |det dg/dz|, of shape (batch,).
        jacobian: d z0_j / d z_i at [..., i, j], of shape (batch, L, L).
        log_det_gradient: d log |det dg/dz| / d z, of shape (batch, L).
    """

    z0: Tensor
    log_det: Tensor
    jacobian: Tensor
    log_det_gradient: Tensor


@dataclass(frozen=True)
class LinearizedDensity:
    """The density log p(z) near points z, for the search of a mode.

    Attributes:
        gradient: d log p(z) / d z, of shape (batch, L).
        factor: F, of shape (batch, L, L), where F F' approximates minus the second derivative of
            log p(z) by a positive semidefinite matrix.
    """

    gradient: Tensor
    factor: Tensor


class AbstractPrior(nn.Module, ABC):
    """A prior p(z) over representations, reached from generation space by an invertible map.

    Generation space contains z0 ~ p0, which is N(0, I) unless a prior overrides it. Representation
    space contains z, which encoders infer and regularizers act on. With ``z0 = g(z)``,

        log p(z) = log p0(g(z)) + log |det dg/dz|.

    A prior may have clusters, p(z) = sum_y p(y) p(z | y); priors without clusters raise an error.

    Args:
        latent_dim: size L of z.

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

    def base(self) -> TorchDistributionMixin:
        """Return p0, the distribution of z0, of batch shape () and event shape (L,)."""
        return dist.Normal(self.base_loc, self.base_scale).to_event(1)

    @property
    def has_smooth_score(self) -> bool:
        """True if the score grad log p(z) is a continuous function of z."""
        return True

    @abstractmethod
    def to_generation(self, z: Points) -> tuple[Points, Values]:
        """Return z0 = g(z) and log |det dg/dz| of points z, of shape (*batch, L)."""

    def linearize_generation(self, z: Points) -> "LinearizedMap":
        """Return g and log |det dg/dz| with their derivatives at points z, (batch, L)."""
        z0, log_det = self.to_generation(z)

        def joined(z: Tensor) -> Tensor:
            z0, log_det = self.to_generation(z)
            return torch.cat([z0, log_det.unsqueeze(-1)], -1)

        derivatives = batch_jacobian(joined, z).movedim(0, 1)
        jacobian, log_det_gradient = derivatives.split([z.shape[-1], 1], -1)
        return LinearizedMap(z0, log_det, jacobian, log_det_gradient.squeeze(-1))

    def linearize_density(self, z: Points) -> LinearizedDensity:
        """Return the gradient of log p(z) and a factor of its negative curvature, for each point.

        With G the Jacobian of g, the curvature is G H0 G' with that of p0, H0; the curvature of g
        is neglected (Gauss-Newton).
        """
        there = self.linearize_generation(z)
        base_gradient, base_factor = self.linearize_base(there.z0)
        pulled = (there.jacobian @ base_gradient.unsqueeze(-1)).squeeze(-1)
        factor = there.jacobian if base_factor is None else there.jacobian @ base_factor
        return LinearizedDensity(there.log_det_gradient + pulled, factor)

    def linearize_base(self, z0: Points) -> tuple[Points, Matrices | None]:
        """Return gradient and factor of log p0 at z0; None for the factor I.

        A prior with another ``base`` than N(0, I) must override this method.
        """
        return -z0, None

    @abstractmethod
    def to_representation(self, z0: Points) -> Points:
        """Return z = g^-1(z0) of points z0, of shape (*batch, L)."""

    def cluster_prior(self) -> Any:
        """Return p(y), a ``Categorical`` over the clusters y = 0, ..., K - 1.

        Raises:
            ValueError: if the prior has no clusters, as in ``conditional`` and ``log_joint``.
        """
        raise self._without_clusters()

    def conditional(self, y: Int[Tensor, "*clusters"]) -> TorchDistributionMixin:
        """Return p(z | y), of the batch shape of y and event shape (L,)."""
        raise self._without_clusters()

    def log_joint(self, z: Points) -> Float[Tensor, "*batch clusters"]:
        """Return log p(y) + log p(z | y) of every cluster y, in nats."""
        log_p = self.cluster_prior().logits
        every = torch.arange(len(log_p), device=log_p.device)
        return log_p + self.conditional(every).log_prob(z.unsqueeze(-2))

    def responsibilities(self, z: Points) -> Float[Tensor, "*batch clusters"]:
        """Return p(y | z) of every cluster y."""
        return self.log_joint(z).softmax(-1)

    def extra_repr(self) -> str:
        """Return the size of z and further arguments, for the ``repr``."""
        return f"latent_dim={self.latent_dim}"

    def _without_clusters(self) -> ValueError:
        return ValueError(
            f"{type(self).__name__} has no clusters: a prior with clusters is needed; use "
            "MixturePrior, or CouplingPrior over a mixture, base=MixturePrior(...)"
        )


class AbstractDirectPrior(AbstractPrior, ABC):
    """A prior whose generation space is its representation space: g(z) = z, and p0 = p."""

    def base(self) -> TorchDistributionMixin:
        """Return p(z) itself."""
        return self()

    def to_generation(self, z: Points) -> tuple[Points, Values]:
        """Return z itself and a log-determinant of zero."""
        return z, z.new_zeros(z.shape[:-1])

    def linearize_generation(self, z: Points) -> LinearizedMap:
        """Return z, I and zeros."""
        return LinearizedMap(z, z.new_zeros(len(z)), identities(z), torch.zeros_like(z))

    @abstractmethod
    def linearize_density(self, z: Points) -> LinearizedDensity:
        """Return the gradient of log p(z) and a factor of its negative curvature, by point."""

    def linearize_base(self, z0: Points) -> tuple[Points, Matrices]:
        """Return gradient and factor of log p(z) itself."""
        there = self.linearize_density(z0)
        return there.gradient, there.factor

    def to_representation(self, z0: Points) -> Points:
        """Return z0 itself."""
        return z0


def identities(z: Points) -> Matrices:
    """Return the identity matrix for each point."""
    return torch.eye(z.shape[-1], dtype=z.dtype, device=z.device).expand(len(z), -1, -1)


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
