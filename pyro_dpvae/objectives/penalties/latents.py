"""The representations of a batch, as penalties see them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_dpvae._ranks import shared
from pyro_dpvae.distributions import map_draws
from pyro_dpvae.objectives.penalties.marginals import coordinate_log_prob

__all__ = ["LatentSite", "Latents", "flatten_event"]


@dataclass(frozen=True)
class LatentSite:
    """One latent site of a batch.

    Attributes:
        name: the site's.
        posterior: q(z | x), of batch shape (*particles, batch).
        prior: p(z), of the same batch shape.
        value: z drawn from q, of shape (*particles, batch, *event).
        log_posterior: log q(z | x) at the value, of shape (*particles, batch).
        log_prior: log p(z) at the value, of shape (*particles, batch).
    """

    name: str
    posterior: Any
    prior: Any
    value: Tensor
    log_posterior: Tensor
    log_prior: Tensor

    @property
    def points(self) -> Tensor:
        """The values as points for every q(z | x_j): (batch i, *particles, batch j, *event)."""
        q = self.posterior
        plate = -1 - len(q.event_shape)

        def spread(z: Tensor) -> Tensor:
            # Distributions of other libraries, such as zuko's, do not all broadcast.
            points = z.movedim(plate, 0).unsqueeze(plate)
            return points.expand(-1, *q.batch_shape, *q.event_shape)

        return map_draws(spread, self.value)


@final
class Latents:
    """All representations of a batch: its latent sites, side by side as one vector z.

    Sites are taken as independent given x, and as independent under the prior: log q(z | x) and
    log p(z) are sums over sites.

    Under an objective ``across_ranks`` the batch is that of all ranks, and a penalty finds the
    same on each of them: draws from a site's posterior and prior too, which are a ``Gathered`` of
    the distributions of all data. Random numbers of a penalty's own go through :meth:`alike`.

    Args:
        sites: at least one, all with the same particles and batch.
        across_ranks: whether the batch is that of all ranks.
    """

    def __init__(self, sites: tuple[LatentSite, ...], *, across_ranks: bool = False) -> None:
        self.sites = sites
        self.across_ranks = across_ranks

    @cached_property
    def value(self) -> Tensor:
        """Z drawn from q(z | x), of shape (*particles, batch, L)."""
        return torch.cat([flatten_event(site.value, site.posterior) for site in self.sites], -1)

    @property
    def size(self) -> int:
        """The number of data in the batch."""
        return self.value.shape[-2]

    @cached_property
    def log_posterior(self) -> Tensor:
        """Log q(z | x) of each datum at its own z, of shape (*particles, batch)."""
        return torch.stack([site.log_posterior for site in self.sites]).sum(0)

    @cached_property
    def log_prior(self) -> Tensor:
        """Log p(z) at each z, of shape (*particles, batch)."""
        return torch.stack([site.log_prior for site in self.sites]).sum(0)

    def prior_sample(self) -> Tensor:
        """Return z drawn from the prior, one for each datum, of shape (*particles, batch, L).

        Gradients reach the prior's parameters where its sampling is reparameterised.
        """
        # As pyro.sample draws: some distributions, such as Pyro's ZukoToPyro, have no other way.
        draws = [site.prior() for site in self.sites]
        flat = [
            flatten_event(draw, site.posterior)
            for draw, site in zip(draws, self.sites, strict=True)
        ]
        return torch.cat(flat, -1)

    def alike(self, noise: Tensor) -> Tensor:
        """Return random numbers, of one shape on all ranks, that are the same on all of them."""
        return shared(noise) if self.across_ranks else noise

    def pairwise_log_posterior(self) -> Tensor:
        """Return log q(z_i | x_j), of shape (batch i, *particles, batch j)."""
        pairs = [site.posterior.log_prob(site.points) for site in self.sites]
        return torch.stack(pairs).sum(0)

    def pairwise_coordinate_log_posterior(self) -> Tensor:
        """Return log q(z_id | x_j) of each coordinate d, (batch i, *particles, batch j, L).

        Raises:
            TypeError: if the coordinates of a site's q(z | x) have no known densities and its
                draws no gradients.
        """
        return torch.cat(
            [coordinate_log_prob(site.posterior, site.points) for site in self.sites], -1
        )


def flatten_event(value: Tensor, distribution: Distribution) -> Tensor:
    """Return a value of a distribution with its event as one vector, (*batch, L)."""
    dims = len(distribution.event_shape)
    return value.flatten(-dims) if dims else value.unsqueeze(-1)
