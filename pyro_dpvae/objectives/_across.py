"""The batch of all ranks: what each has found of its own data, gathered for the objective."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from pyro_dpvae._ranks import gather_batch, gather_objects
from pyro_dpvae.objectives._gathering import Over, gather_together
from pyro_dpvae.objectives._rebuilding import gathered
from pyro_dpvae.objectives.penalties import Latents, LatentSite
from pyro_dpvae.objectives.rates import SiteRate

__all__ = ["Particle", "check_equal_shapes", "of_all_ranks"]


@dataclass(frozen=True)
class Particle:
    """What one pair of traces says of each datum of a batch."""

    distortion: Tensor
    rates: list[SiteRate]


def of_all_ranks(
    particles: Sequence[Particle], drawn: Sequence[Latents], *, size: int
) -> tuple[list[Particle], list[Latents]]:
    """Return what all ranks have found, for the whole batch.

    Args:
        particles: of this rank.
        drawn: the representations of this rank.
        size: how many data each rank has.
    """

    def build(over: Over) -> tuple[list[Particle], list[Latents]]:
        return [_particle(one, over) for one in particles], [_latents(one, over) for one in drawn]

    return gather_together(build, size=size)


def check_equal_shapes(args: Any, kwargs: Any) -> None:
    """Refuse batches of different shapes, on every rank alike, before one waits for another.

    Raises:
        ValueError: if tensor arguments have other shapes on other ranks.
    """
    leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    shapes = [tuple(leaf.shape) for leaf in leaves]
    device = leaves[0].device if leaves else torch.device("cpu")
    digest = torch.tensor([zlib.crc32(repr(shapes).encode())], device=device)
    if len(set(gather_batch(digest).tolist())) > 1:
        raise ValueError(
            "across ranks, all ranks take batches of one size in the same step, got tensors of "
            f"shapes {gather_objects(shapes)}, rank by rank; cut equal parts, or leave out data "
            "that do not divide evenly"
        )


def _particle(one: Particle, over: Over) -> Particle:
    rates = [
        replace(
            rate,
            total=over(rate.total, 0),
            coordinates=None if rate.coordinates is None else over(rate.coordinates, 1),
        )
        for rate in one.rates
    ]
    return Particle(over(one.distortion, 0), rates)


def _latents(latents: Latents, over: Over) -> Latents:
    return Latents(tuple(_site(site, over) for site in latents.sites), across_ranks=True)


def _site(site: LatentSite, over: Over) -> LatentSite:
    return LatentSite(
        site.name,
        gathered(site.posterior, over),
        gathered(site.prior, over),
        over(site.value, len(site.posterior.event_shape)),
        over(site.log_posterior, 0),
        over(site.log_prior, 0),
    )
