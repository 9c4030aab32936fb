"""The base class of guides: q(z | x) at the latent site, for each datum of a batch."""

import pyro
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_dpvae.decoders import AbstractDecoder
from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.ownership import OwnedModule, plain
from pyro_dpvae.priors import AbstractPrior
from pyro_dpvae.sites import LATENT, PLATE

__all__ = ["AbstractGuide", "check_latent_dims"]


class AbstractGuide(OwnedModule):
    """A guide that samples z ~ q(z | x), independently for each datum.

    A subclass defines ``posterior``, which metrics and plots also use. The program samples it at
    the single latent site. A guide with several sites overrides ``forward``; its concatenated
    samples have the distribution ``posterior(x)``.

    Example:
        The prior itself as a guide, whatever the datum:

        >>> import pyro.distributions as dist
        >>> import torch
        >>> class Blind(AbstractGuide):
        ...     def posterior(self, x: Tensor) -> TorchDistributionMixin:
        ...         return dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1)
        >>> Blind()(torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def posterior(self, x: Tensor) -> TorchDistributionMixin:
        """Return q(z | x), of batch shape (batch,) and event shape (L,), for a batch of data."""
        raise NotImplementedError(f"{type(self).__name__} must define posterior(x)")

    @plain
    def forward(self, x: Tensor) -> Tensor:
        """Run the guide on a batch x of shape (batch, *data); return z of shape (batch, L)."""
        with pyro.plate(PLATE, len(x)):
            return pyro.sample(LATENT, self.posterior(x))


def check_latent_dims(
    encoder: GaussianEncoder, decoder: AbstractDecoder, prior: AbstractPrior
) -> int:
    """Return the size L of z after checking that all three agree.

    Raises:
        ValueError: with the three sizes.
    """
    sizes = encoder.latent_dim, decoder.latent_dim, prior.latent_dim
    if len(set(sizes)) > 1:
        raise ValueError(
            "encoder, decoder and prior must agree on latent_dim, "
            f"got {sizes[0]}, {sizes[1]} and {sizes[2]}"
        )
    return sizes[0]
