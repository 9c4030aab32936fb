"""Penalties: what an objective charges a whole batch of representations."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

__all__ = ["AbstractPenalty", "LatentSite"]


@dataclass(frozen=True)
class LatentSite:
    """One latent site of a batch: its name, q(z | x), p(z), and the z drawn from q.

    ``value`` has shape (batch, L), or (particles, batch, L) if particles are vectorized.
    """

    name: str
    posterior: TorchDistributionMixin
    prior: TorchDistributionMixin
    value: Tensor


class AbstractPenalty(ABC):
    """A term on the representations of a whole batch, such as their total correlation.

    Attributes:
        name: the key of the term in ``ELBO.terms``.
    """

    name: str

    @abstractmethod
    def __call__(self, latents: list[LatentSite]) -> Float[Tensor, ""]:
        """Return the charge per datum, in nats: what is added to the loss of each datum."""
