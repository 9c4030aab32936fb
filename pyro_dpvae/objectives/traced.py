"""Terms of any Pyro program, from the traces of a model and a guide."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from pyro.distributions import Delta, MaskedDistribution
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor

from pyro_dpvae._plates import PARTICLES, batch_plate, sample_sites
from pyro_dpvae.objectives._divergence import (
    coordinate_divergence,
    expected_log_density,
    known_divergence,
)
from pyro_dpvae.objectives._draws import Draw, check_draws
from pyro_dpvae.objectives._enumeration import Enumeration, enumerated_dim
from pyro_dpvae.objectives.penalties import Latents, LatentSite
from pyro_dpvae.objectives.rates import SiteRate
from pyro_dpvae.objectives.terms import Terms, averaged

__all__ = ["Batch", "traced_terms"]

Site = dict[str, Any]
Expectation = Callable[[Tensor, Site], Tensor]


class Batch:
    """The plate over the batch, found from an observed site of the model.

    Attributes:
        name: name of the plate.
        size: number of items in the batch of this rank.
        full_size: number of items that the batches of all ``count`` ranks represent, larger than
            their sizes if the plate subsamples.
    """

    def __init__(self, model_trace: Trace, *, name: str | None, count: int) -> None:
        observed = [site for site in sample_sites(model_trace) if site["is_observed"]]
        latent = [site for site in sample_sites(model_trace) if not site["is_observed"]]
        frame = batch_plate(observed, latent, name=name)
        self.name, self.dim, self.size = frame.name, frame.dim, frame.size
        stands_for: int = frame.full_size or self.size
        # A subsampling plate has the size of the data set, for any number of ranks.
        self.full_size = stands_for if stands_for > self.size else count * self.size
        self._subsampling = stands_for / self.size

    def __contains__(self, site: Site) -> bool:
        """Return True if a site lies in the plate."""
        return self.name in self._plates(site)

    def per_datum(self, term: Tensor, site: Site, *, particles: int) -> Tensor:
        """Reduce a term of a site to shape (batch,), in the units of one datum.

        Other plates are summed, vectorized particles averaged, and a term from outside the plate
        is divided evenly among the items.
        """
        if site not in self:
            return term.sum().expand(self.size) / (particles * self.full_size)
        term = term.expand(
            torch.broadcast_shapes(term.shape, (self.size,) + (1,) * (-self.dim - 1))
        )
        others = [dim for dim in range(-term.dim(), 0) if dim != self.dim]
        return (term.sum(others) if others else term) / (particles * self._subsampling)

    def common_scale(self, *traces: Trace) -> Tensor | float:
        """Return the factor that scales all sites of programs, besides the plate; else 1."""
        scales = [
            site["scale"] / (self._subsampling if site in self else 1.0)
            for trace in traces
            for site in sample_sites(trace)
        ]
        numbers = [scale for scale in scales if not isinstance(scale, Tensor)]
        if len(numbers) == len(scales):
            alike = all(math.isclose(scale, numbers[0], rel_tol=1e-6) for scale in numbers)
            return numbers[0] if alike else 1.0
        if any(isinstance(scale, Tensor) and scale.dim() for scale in scales):
            return 1.0
        # No number is read from the device.
        like = next(scale for scale in scales if isinstance(scale, Tensor))
        every = torch.stack([torch.as_tensor(scale).to(like) for scale in scales])
        same = ((every - every[0]).abs() <= 1e-6 * every[0].abs()).all()
        return torch.where(same, every[0], torch.ones_like(like))

    def check_for_penalties(self, *sites: Site) -> None:
        """Raise unless a latent, as sites of model and guide, has one value per datum."""
        site = sites[0]
        others = self._plates(site) - {self.name, PARTICLES}
        if others or self.dim != -1 or site not in self:
            raise ValueError(
                f"penalties need latents only in the plate {self.name!r}, as dimension -1; got "
                f"{site['name']!r} in {sorted(self._plates(site))} with {self.name!r} at "
                f"{self.dim}; declare the dimensions of one item's latents with to_event"
            )
        for one in sites:
            if (one["mask"] is not None and one["mask"] is not True) or any(
                isinstance(part, MaskedDistribution) for part in _parts(one["fn"])
            ):
                raise ValueError(
                    f"penalties use every item of a batch, got a mask at {site['name']!r}; leave "
                    "masked data out of the batch"
                )

    @staticmethod
    def _plates(site: Site) -> set[str]:
        return {frame.name for frame in site["cond_indep_stack"]}


def traced_terms(
    draws: Sequence[Draw],
    *,
    plate: str | None,
    particles: int,
    coordinates: bool,
    count: int,
) -> Terms:
    """Return the terms of some samples of the latents, from their traces with densities."""
    strata = [traces for draw in draws for traces in draw.strata]
    batch = Batch(strata[0][0], name=plate, count=count)
    distortions, rates = [], []
    for model_trace, guide_trace in strata:
        expected = _expectation(guide_trace, batch, particles)
        observed = [site for site in sample_sites(model_trace) if site["is_observed"]]
        terms = [expected(-site["log_prob"], site) for site in observed]
        distortions.append(torch.stack(terms).sum(0))
        rates.append(_rates(model_trace, guide_trace, expected, coordinates=coordinates))
    wholes = [draw.whole for draw in draws if draw.whole is not None]
    latents = tuple(_latents(*traces, batch) for traces in wholes)
    scale = batch.common_scale(*strata[0]) if latents else 1.0
    return Terms(*averaged(distortions, rates), latents, batch.full_size, scale)


def _expectation(guide_trace: Trace, batch: Batch, particles: int) -> Expectation:
    """Return what reduces a term of a site to one value per datum."""
    average = Enumeration(guide_trace).expected
    return lambda term, site: batch.per_datum(average(term), site, particles=particles)


def _rates(
    model_trace: Trace,
    guide_trace: Trace,
    expected: Expectation,
    *,
    coordinates: bool,
) -> list[SiteRate]:
    """Return E_q[log q(z | x) - log p(z)] of each latent site and datum."""
    model_latents = {s["name"]: s for s in sample_sites(model_trace) if not s["is_observed"]}
    guide_latents = {s["name"]: s for s in sample_sites(guide_trace)}
    unguided = sorted(model_latents.keys() - guide_latents.keys())
    if unguided:
        raise ValueError(
            f"the guide lacks latent sites of the model: {unguided}; sample them in the guide or "
            "observe them in the model"
        )
    rates = []
    order = list(model_latents)
    for index, (name, guide_site) in enumerate(guide_latents.items()):
        check_draws(name, guide_site["fn"], enumerated=enumerated_dim(guide_site) is not None)
        model_site = model_latents.get(name)
        # The closed-form divergence given the model's parents averages over this site alone, so
        # under q the parents must not depend on it. They do not if the guide has sampled them
        # before.
        drawn = list(guide_latents)[:index]
        closed = model_site is not None and all(
            parent in drawn for parent in order[: order.index(name)]
        )
        terms = _rate_terms(model_site, guide_site, closed=closed)
        total = torch.stack([expected(term, site) for term, site in terms]).sum(0)
        by_coordinate = None
        if coordinates and model_site is not None and closed:
            divergence = _coordinate_divergence(model_site, guide_site)
            if divergence is not None:
                parts = [expected(part, guide_site) for part in divergence.unbind(-1)]
                by_coordinate = torch.stack(parts, -1)
        rates.append(SiteRate(name, total, by_coordinate))
    return _with_auxiliary(rates, model_latents, guide_latents)


def _with_auxiliary(
    rates: Sequence[SiteRate], model_latents: dict[str, Site], guide_latents: dict[str, Site]
) -> list[SiteRate]:
    """Return the rates of the model's latents; each includes that of auxiliary sites before it.

    An auxiliary site is of the guide alone, such as the normal of an autoguide. Latents that the
    guide computes from it have no density of their own, and so one rate together.
    """
    joined: list[SiteRate] = []
    pending: list[SiteRate] = []
    shared = False  # whether the last rate includes auxiliary sites
    for rate in rates:
        computed = any(isinstance(part, Delta) for part in _parts(guide_latents[rate.name]["fn"]))
        if rate.name not in model_latents:
            pending.append(rate)
        elif pending:
            total = torch.stack([one.total for one in (*pending, rate)]).sum(0)
            joined.append(SiteRate(rate.name, total, None))
            pending, shared = [], True
        elif shared and computed:
            joined[-1] = replace(joined[-1], total=joined[-1].total + rate.total)
        else:
            joined.append(rate)
            shared = False
    return [*joined, *pending]


def _parts(distribution: Any) -> Iterator[Any]:
    """Yield a distribution, its base, the base of that, and so on."""
    while distribution is not None:
        yield distribution
        distribution = getattr(distribution, "base_dist", None)


def _latents(model_trace: Trace, guide_trace: Trace, batch: Batch) -> Latents:
    """Return the latent sites in the batch's plate, of model and guide, for penalties.

    Enumerated discrete sites are excluded; the prior of a site that depends on them is its
    marginal.
    """
    guide_sites = {site["name"]: site for site in sample_sites(guide_trace)}
    enumeration = Enumeration(guide_trace)
    sites, summed = [], set[str]()
    for site in sample_sites(model_trace):
        if site["is_observed"] or site not in batch:
            continue
        guide_site = guide_sites[site["name"]]
        if enumerated_dim(guide_site) is not None:
            continue
        batch.check_for_penalties(site, guide_site)
        marginal, parents = enumeration.marginal(
            site, lambda name: model_trace.nodes[name]["unscaled_log_prob"]
        )
        shared = enumeration.parents(guide_site["fn"]) or parents & summed
        if shared:
            raise ValueError(
                "penalties need a q(z | x) without enumerated sites, and latents that share "
                f"none under p, got {site['name']!r} with {sorted(shared)}; sample z from q(z | "
                "x) itself, or join the latents to one site"
            )
        summed |= parents
        for parent in sorted(parents):
            batch.check_for_penalties(model_trace.nodes[parent])
        prior, log_prior = site["fn"], site["unscaled_log_prob"]
        if marginal is not None:
            prior, log_prior = marginal, marginal.log_prob(site["value"])
        log_posterior = guide_site["unscaled_log_prob"]
        q, value = guide_site["fn"], site["value"]
        sites.append(LatentSite(site["name"], q, prior, value, log_posterior, log_prior))
    if not sites:
        raise ValueError(
            f"penalties need a latent site inside pyro.plate({batch.name!r}, batch size) that is "
            "not enumerated, got none"
        )
    return Latents(tuple(sites))


def _rate_terms(
    model_site: Site | None, guide_site: Site, *, closed: bool
) -> Iterator[tuple[Tensor, Site]]:
    """Yield terms that sum to E[a log q - b log p], with a and b the scales of the two sites."""
    q, summed = guide_site["fn"], enumerated_dim(guide_site) is not None
    if model_site is not None and closed and not summed and _same("mask", model_site, guide_site):
        divergence = known_divergence(q, model_site["fn"])
        if divergence is not None:
            # b KL + (a - b) E[log q]: no comparison of scales that are tensors
            yield _handled(divergence, model_site), model_site
            if not _same("scale", model_site, guide_site):
                rescaled = {**guide_site, "scale": model_site["scale"]}
                yield _expected_log_posterior(guide_site), guide_site
                yield -_expected_log_posterior(rescaled), guide_site
            return
    # A sum over all values of a discrete site is exact, and safe where q is 0.
    yield guide_site["log_prob"] if summed else _expected_log_posterior(guide_site), guide_site
    if model_site is not None:
        yield -model_site["log_prob"], model_site


def _expected_log_posterior(site: Site) -> Tensor:
    return _handled(expected_log_density(site["fn"], site["unscaled_log_prob"]), site)


def _coordinate_divergence(model_site: Site, guide_site: Site) -> Tensor | None:
    """Return KL of each coordinate, (*plates, L), if both sides factorise in closed form."""
    if not (_same("mask", model_site, guide_site) and _same("scale", model_site, guide_site)):
        return None
    divergence = coordinate_divergence(guide_site["fn"], model_site["fn"])
    if divergence is None:
        return None
    mask, scale = guide_site["mask"], guide_site["scale"]
    if isinstance(mask, Tensor):
        mask = mask.unsqueeze(-1)
    if isinstance(scale, Tensor) and scale.dim():
        scale = scale.unsqueeze(-1)
    return scale_and_mask(divergence, scale, mask)


def _same(key: str, one: Site, other: Site) -> bool:
    # Tensors are compared by identity: comparing values would wait for the device.
    a, b = one[key], other[key]
    return a is b or (not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b)


def _handled(term: Tensor, site: Site) -> Tensor:
    return scale_and_mask(term, site["scale"], site["mask"])
