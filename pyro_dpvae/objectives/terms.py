"""The terms of each datum of a batch, from which objectives are computed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pyro_dpvae.distributions import map_draws
from pyro_dpvae.objectives._gathering import Over, gather_together
from pyro_dpvae.objectives._rebuilding import gathered
from pyro_dpvae.objectives.penalties import Latents, LatentSite
from pyro_dpvae.objectives.rates import SiteRate

__all__ = ["TermValues", "Terms", "averaged", "of_all_ranks"]


@dataclass(frozen=True)
class Terms:
    """The terms of each datum, in nats, averaged over the samples of z.

    Attributes:
        distortion: E_q[-log p(x | z)] of each datum, of shape (batch,).
        rates: E_q[log q(z | x) - log p(z)] of each latent site and datum.
        latents: the representations for penalties, one entry per sample of z; empty without
            penalties.
        full_size: number of data that the batch represents, larger than the batch if a plate
            subsamples.
        scale: the factor of ``poutine.scale`` on all sites of model and guide, and so on
            penalties; 1 if sites have different factors.
    """

    distortion: Tensor
    rates: tuple[SiteRate, ...]
    latents: tuple[Latents, ...]
    full_size: int
    scale: Tensor | float = 1.0

    @property
    def size(self) -> int:
        """The number of items in the batch."""
        return len(self.distortion)


class TermValues(dict[str, Tensor]):
    """The terms of a loss by name, as tensors, printed as numbers.

    Example:
        >>> TermValues(rate=torch.tensor(0.5))
        {'rate': 0.5}
    """

    def __repr__(self) -> str:
        return repr({name: float(term) for name, term in self.items()})


def averaged(
    distortions: Sequence[Tensor], rates: Sequence[Sequence[SiteRate]]
) -> tuple[Tensor, tuple[SiteRate, ...]]:
    """Return the distortion of each datum and the rates of each site, averaged over samples."""
    if len(distortions) == 1:
        return distortions[0], tuple(rates[0])
    means = []
    for sites in zip(*rates, strict=True):
        coordinates = [site.coordinates for site in sites if site.coordinates is not None]
        means.append(
            SiteRate(
                sites[0].name,
                torch.stack([site.total for site in sites]).mean(0),
                torch.stack(coordinates).mean(0) if coordinates else None,
            )
        )
    return torch.stack(list(distortions)).mean(0), tuple(means)


def of_all_ranks(terms: Terms) -> Terms:
    """Return the terms of all ranks' data; all must call it with the same number of items."""

    def rate(own: SiteRate, over: Over) -> SiteRate:
        coordinates = None if own.coordinates is None else over(own.coordinates, 1)
        return replace(own, total=over(own.total, 0), coordinates=coordinates)

    def build(over: Over) -> Terms:
        return replace(
            terms,
            distortion=over(terms.distortion, 0),
            rates=tuple(rate(own, over) for own in terms.rates),
            latents=tuple(
                Latents(tuple(_site(site, over) for site in latents.sites), across_ranks=True)
                for latents in terms.latents
            ),
        )

    return gather_together(build, size=terms.size)


def _site(site: LatentSite, over: Over) -> LatentSite:
    dims = len(site.posterior.event_shape)
    return LatentSite(
        site.name,
        gathered(site.posterior, over),
        gathered(site.prior, over),
        map_draws(lambda value: over(value, dims), site.value),
        over(site.log_posterior, 0),
        over(site.log_prior, 0),
    )
