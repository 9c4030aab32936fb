"""Terms of the evidence lower bound, per datum, read off the traces of a model and a guide."""

from collections.abc import Iterator
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_dpvae.objectives.penalties import LatentSite
from pyro_dpvae.sites import PLATE

__all__ = ["DataPlate", "distortion", "latent_sites", "rate"]

Site = dict[str, Any]


class DataPlate:
    """The plate over the batch, as an observed site of the model saw it.

    Attributes:
        size: how many data the batch holds.
        full_size: how many data the batch stands for; more than ``size`` if the plate subsamples.
    """

    def __init__(self, model_trace: Trace) -> None:
        observed = [site for site in _sample_sites(model_trace) if site["is_observed"]]
        frames = {frame.name: frame for site in observed for frame in site["cond_indep_stack"]}
        if PLATE not in frames:
            raise ValueError(
                f"the model must observe its data inside pyro.plate({PLATE!r}, batch size), "
                f"got observed sites {[site['name'] for site in observed]} "
                f"in plates {sorted(frames)}"
            )
        self.dim: int = frames[PLATE].dim
        self.size: int = frames[PLATE].size
        self.full_size: int = frames[PLATE].full_size or self.size

    def per_datum(self, term: Tensor, site: Site, *, particles: int) -> Tensor:
        """Reduce a term of a site to shape (batch,), in the units of one datum.

        Plates other than the data's are summed, vectorized particles averaged, and a term from
        outside the data plate is shared out evenly.
        """
        frames = {frame.name: frame for frame in site["cond_indep_stack"]}
        subsampling = self.full_size / self.size
        if PLATE not in frames:
            return term.sum().expand(self.size) / (particles * self.full_size)
        term = term.expand(
            torch.broadcast_shapes(term.shape, (self.size,) + (1,) * (-self.dim - 1))
        )
        others = [dim for dim in range(-term.dim(), 0) if dim != self.dim]
        return (term.sum(others) if others else term) / (particles * subsampling)


def distortion(model_trace: Trace, plate: DataPlate, *, particles: int) -> Tensor:
    """Return -log p(x | z) of each datum, of shape (batch,)."""
    terms = [
        plate.per_datum(-site["log_prob"], site, particles=particles)
        for site in _sample_sites(model_trace)
        if site["is_observed"]
    ]
    return torch.stack(terms).sum(0)


def rate(model_trace: Trace, guide_trace: Trace, plate: DataPlate, *, particles: int) -> Tensor:
    """Return E_q[log q(z | x) - log p(z)] of each datum, of shape (batch,)."""
    model_latents = {s["name"]: s for s in _sample_sites(model_trace) if not s["is_observed"]}
    guide_latents = {s["name"]: s for s in _sample_sites(guide_trace)}
    unguided = sorted(model_latents.keys() - guide_latents.keys())
    if unguided:
        raise ValueError(
            f"every latent site of the model must be in the guide, got none for {unguided}; "
            "sample it in the guide or observe it in the model"
        )
    terms = []
    for name, guide_site in guide_latents.items():
        if not guide_site["fn"].has_rsample:
            raise ValueError(
                "every guide site must be reparameterised for this objective, got "
                f"{type(guide_site['fn']).__name__} at {name!r}; use pyro.infer.TraceGraph_ELBO, "
                "or sum the site out"
            )
        terms += [
            plate.per_datum(term, site, particles=particles)
            for term, site in _rate_terms(model_latents.get(name), guide_site)
        ]
    return torch.stack(terms).sum(0)


def latent_sites(model_trace: Trace, guide_trace: Trace) -> list[LatentSite]:
    """Return the latent sites that model and guide share, for penalties."""
    guide_sites = {site["name"]: site for site in _sample_sites(guide_trace)}
    return [
        LatentSite(site["name"], guide_sites[site["name"]]["fn"], site["fn"], site["value"])
        for site in _sample_sites(model_trace)
        if not site["is_observed"]
    ]


def _rate_terms(model_site: Site | None, guide_site: Site) -> Iterator[tuple[Tensor, Site]]:
    # With different scales on its two sides the rate is no multiple of a divergence, and only
    # the two expectations are defined.
    if model_site is not None and _same_handling(model_site, guide_site):
        try:
            divergence = kl_divergence(guide_site["fn"], model_site["fn"])
        except NotImplementedError:
            pass
        else:
            yield _handled(divergence, guide_site), guide_site
            return
    try:
        yield _handled(-guide_site["fn"].entropy(), guide_site), guide_site
    except NotImplementedError:
        yield guide_site["log_prob"], guide_site
    if model_site is not None:
        yield -model_site["log_prob"], model_site


def _same_handling(one: Site, other: Site) -> bool:
    # Tensors are compared by identity: a comparison of values would wait for the device.
    def same(a: Any, b: Any) -> bool:
        return a is b or (not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b)

    return same(one["scale"], other["scale"]) and same(one["mask"], other["mask"])


def _handled(term: Tensor, site: Site) -> Tensor:
    return scale_and_mask(term, site["scale"], site["mask"])


def _sample_sites(trace: Trace) -> list[Site]:
    return [site for site in trace.nodes.values() if site["type"] == "sample"]
