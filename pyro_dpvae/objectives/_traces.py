"""Terms of the evidence lower bound, per datum, read off the traces of a model and a guide."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import Independent, kl_divergence

from pyro_dpvae.objectives._divergence import closed_divergence
from pyro_dpvae.objectives._enumeration import Enumeration, enumerated_dim
from pyro_dpvae.objectives.penalties import Latents, LatentSite
from pyro_dpvae.objectives.penalties.marginals import is_delta
from pyro_dpvae.objectives.rates import SiteRate
from pyro_dpvae.sites import PLATE

__all__ = ["DataPlate", "distortion", "latents", "site_rates"]

Site = dict[str, Any]

_PARTICLES = "num_particles_vectorized"  # Pyro's name of the plate of its samples


class DataPlate:
    """The plate over the batch, as an observed site of the model saw it.

    Attributes:
        size: how many data the batch holds, on this rank.
        global_size: how many it holds on all ranks that take part.
        full_size: how many data the latter stand for; more than they are if the plate subsamples.
    """

    def __init__(self, model_trace: Trace, *, count: int = 1) -> None:
        observed = [site for site in _sample_sites(model_trace) if site["is_observed"]]
        frames = {frame.name: frame for site in observed for frame in site["cond_indep_stack"]}
        if PLATE not in frames:
            raise ValueError(
                f"the model must observe its data inside pyro.plate({PLATE!r}, batch size), "
                f"got observed sites {[site['name'] for site in observed]} "
                f"in plates {sorted(frames)}"
            )
        if not frames[PLATE].vectorized:
            raise ValueError(
                f"the data plate must be vectorized, got a loop over pyro.plate({PLATE!r}, ...); "
                "write 'with pyro.plate(...):' and observe the whole batch at once"
            )
        self.dim: int = frames[PLATE].dim
        self.size: int = frames[PLATE].size
        stands_for: int = frames[PLATE].full_size or self.size
        self.global_size = count * self.size
        # A plate that subsamples says how large the data set is, whoever takes part.
        self.full_size = stands_for if stands_for > self.size else self.global_size
        self._subsampling = stands_for / self.size

    def per_datum(
        self, term: Tensor, site: Site, *, particles: int, coordinates: bool = False
    ) -> Tensor:
        """Reduce a term of a site to shape (batch,), in the units of one datum.

        Plates other than the data's are summed, vectorized particles averaged, and a term from
        outside the data plate is shared out evenly. With ``coordinates`` the term's last
        dimension is none of the plates, and stays.
        """
        if coordinates:
            by_coordinate = [
                self.per_datum(one, site, particles=particles) for one in term.unbind(-1)
            ]
            return torch.stack(by_coordinate, -1)
        frames = {frame.name: frame for frame in site["cond_indep_stack"]}
        if PLATE not in frames:
            return term.sum().expand(self.size) / (particles * self.full_size)
        term = term.expand(
            torch.broadcast_shapes(term.shape, (self.size,) + (1,) * (-self.dim - 1))
        )
        others = [dim for dim in range(-term.dim(), 0) if dim != self.dim]
        return (term.sum(others) if others else term) / (particles * self._subsampling)


def distortion(
    model_trace: Trace, plate: DataPlate, *, enumeration: Enumeration, particles: int
) -> Tensor:
    """Return E_q[-log p(x | z)] of each datum, of shape (batch,)."""
    terms = [
        plate.per_datum(enumeration.expected(-site["log_prob"]), site, particles=particles)
        for site in _sample_sites(model_trace)
        if site["is_observed"]
    ]
    return torch.stack(terms).sum(0)


def site_rates(
    model_trace: Trace,
    guide_trace: Trace,
    plate: DataPlate,
    *,
    enumeration: Enumeration,
    particles: int,
    coordinates: bool,
) -> list[SiteRate]:
    """Return E_q[log q(z | x) - log p(z)] of each latent site and datum.

    With ``coordinates``, also that of each coordinate, where it exists.
    """
    model_latents = {s["name"]: s for s in _sample_sites(model_trace) if not s["is_observed"]}
    guide_latents = {s["name"]: s for s in _sample_sites(guide_trace)}
    unguided = sorted(model_latents.keys() - guide_latents.keys())
    if unguided:
        raise ValueError(
            f"every latent site of the model must be in the guide, got none for {unguided}; "
            "sample it in the guide or observe it in the model"
        )
    rates = []
    order = list(model_latents)
    for index, (name, guide_site) in enumerate(guide_latents.items()):
        if not guide_site["fn"].has_rsample and enumerated_dim(guide_site) is None:
            raise ValueError(
                "every guide site must be reparameterised or enumerated for this objective, got "
                f"{type(guide_site['fn']).__name__} at {name!r}; use pyro.infer.TraceGraph_ELBO, "
                'or mark a discrete site with infer={"enumerate": "parallel"} to have it summed '
                "out"
            )
        model_site = model_latents.get(name)
        # The divergence given the model's parents averages over this site alone: under q they
        # must not depend on it, as they do not where the guide has drawn them before.
        drawn = list(guide_latents)[:index]
        closed = model_site is not None and all(
            parent in drawn for parent in order[: order.index(name)]
        )
        terms = [
            plate.per_datum(enumeration.expected(term), site, particles=particles)
            for term, site in _rate_terms(model_site, guide_site, closed=closed)
        ]
        by_coordinate = None
        if coordinates and model_site is not None and closed:
            divergence = _coordinate_divergence(model_site, guide_site)
            if divergence is not None:
                parts = [enumeration.expected(part) for part in divergence.unbind(-1)]
                divergence = torch.stack(parts, -1)
                by_coordinate = plate.per_datum(
                    divergence, guide_site, particles=particles, coordinates=True
                )
        rates.append(SiteRate(name, torch.stack(terms).sum(0), by_coordinate))
    return rates


def latents(model_trace: Trace, guide_trace: Trace, plate: DataPlate) -> Latents:
    """Return the latent sites of the data plate that model and guide share, for penalties.

    Discrete sites that are summed out are none of them; the prior of a site that depends on such
    sites is its marginal.
    """
    guide_sites = {site["name"]: site for site in _sample_sites(guide_trace)}
    enumeration = Enumeration(guide_trace)
    sites, summed = [], set[str]()
    for site in _sample_sites(model_trace):
        if site["is_observed"] or PLATE not in {f.name for f in site["cond_indep_stack"]}:
            continue
        guide_site = guide_sites[site["name"]]
        if enumerated_dim(guide_site) is not None:
            continue
        _check_for_penalties(site, guide_site, plate)
        marginal, parents = enumeration.marginal(
            site, lambda name: model_trace.nodes[name]["unscaled_log_prob"]
        )
        shared = enumeration.parents(guide_site["fn"]) or parents & summed
        if shared:
            raise ValueError(
                "penalties need a q(z | x) without enumerated sites, and latents without a common "
                f"one under p, got {site['name']!r} with {sorted(shared)}; draw z from q(z | x) "
                "itself, or join the latents to one site"
            )
        summed |= parents
        prior, log_prior = site["fn"], site["unscaled_log_prob"]
        if marginal is not None:
            prior, log_prior = marginal, marginal.log_prob(site["value"])
        sites.append(
            LatentSite(
                site["name"],
                guide_site["fn"],
                prior,
                site["value"],
                guide_site["unscaled_log_prob"],
                log_prior,
            )
        )
    if not sites:
        raise ValueError(
            f"penalties need a latent site inside pyro.plate({PLATE!r}, batch size) that is not "
            "enumerated, got none"
        )
    return Latents(tuple(sites))


def _check_for_penalties(site: Site, guide_site: Site, plate: DataPlate) -> None:
    others = {frame.name for frame in site["cond_indep_stack"]} - {PLATE, _PARTICLES}
    if others or plate.dim != -1:
        raise ValueError(
            f"penalties need latents in the plate {PLATE!r} alone, as dimension -1; got "
            f"{site['name']!r} in {sorted(others | {PLATE})} with {PLATE!r} at {plate.dim}; "
            "declare dimensions of one datum's latents with to_event"
        )
    for one in (site, guide_site):
        if one["mask"] is not None and one["mask"] is not True:
            raise ValueError(
                f"penalties take every datum of a batch, got a mask at {site['name']!r}; "
                "leave masked data out of the batch"
            )


def _rate_terms(
    model_site: Site | None, guide_site: Site, *, closed: bool
) -> Iterator[tuple[Tensor, Site]]:
    """Yield what adds up to E[a log q - b log p], with a and b the scales of the two sites."""
    q, summed = guide_site["fn"], enumerated_dim(guide_site) is not None
    if model_site is not None and closed and not summed and _same_mask(model_site, guide_site):
        divergence = _if_known(q, lambda: closed_divergence(q, model_site["fn"]))
        if divergence is not None:
            # b KL + (a - b) E[log q]: no comparison of scales that are tensors
            yield _handled(divergence, model_site), model_site
            if not _same_scale(model_site, guide_site):
                rescaled = {**guide_site, "scale": model_site["scale"]}
                yield _expected_log_posterior(guide_site), guide_site
                yield -_expected_log_posterior(rescaled), guide_site
            return
    # A sum over all values of a discrete site is exact at the values, and safe where q is 0.
    yield guide_site["log_prob"] if summed else _expected_log_posterior(guide_site), guide_site
    if model_site is not None:
        yield -model_site["log_prob"], model_site


def _expected_log_posterior(site: Site) -> Tensor:
    entropy = _if_known(site["fn"], site["fn"].entropy)
    return _handled(site["unscaled_log_prob"] if entropy is None else -entropy, site)


def _if_known(q: Any, quantity: Callable[[], Tensor]) -> Tensor | None:
    """Return a quantity of q if it has a closed form.

    That of a Delta is of no use: its density is what an autoguide makes of a change of variables.
    """
    try:
        return None if is_delta(q) else quantity()
    except NotImplementedError:
        return None


def _coordinate_divergence(model_site: Site, guide_site: Site) -> Tensor | None:
    """Return KL of each coordinate, (*plates, L), if both sides factorise in closed form."""
    q, p = guide_site["fn"], model_site["fn"]
    if not (
        _same_mask(model_site, guide_site)
        and _same_scale(model_site, guide_site)
        and isinstance(q, Independent)
        and isinstance(p, Independent)
        and not q.base_dist.event_shape
        and not p.base_dist.event_shape
    ):
        return None
    divergence = _if_known(q, lambda: kl_divergence(q.base_dist, p.base_dist))
    if divergence is None:
        return None
    divergence = divergence.flatten(-len(q.event_shape))
    mask = guide_site["mask"]
    if isinstance(mask, Tensor):
        mask = mask.unsqueeze(-1)
    scale = guide_site["scale"]
    if isinstance(scale, Tensor) and scale.dim():
        scale = scale.unsqueeze(-1)
    return scale_and_mask(divergence, scale, mask)


def _same_mask(one: Site, other: Site) -> bool:
    return _same(one["mask"], other["mask"])


def _same_scale(one: Site, other: Site) -> bool:
    return _same(one["scale"], other["scale"])


def _same(a: Any, b: Any) -> bool:
    # Tensors are compared by identity: a comparison of values would wait for the device.
    return a is b or (not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b)


def _handled(term: Tensor, site: Site) -> Tensor:
    return scale_and_mask(term, site["scale"], site["mask"])


def _sample_sites(trace: Trace) -> list[Site]:
    return [site for site in trace.nodes.values() if site["type"] == "sample"]
