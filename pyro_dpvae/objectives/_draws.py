"""Traces of a model and a guide; mixtures q(z | x) are sampled component by component."""

from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.infer.enum import get_importance_trace
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_dpvae._plates import PARTICLES, sample_sites
from pyro_dpvae.distributions import DiagonalNormalMixture
from pyro_dpvae.objectives._enumeration import Enumerating, enumerated_trace

__all__ = ["Draw", "by_component", "check_draws", "draw"]

_LEAST_WEIGHT = 1e-6  # so that gradients stay finite

Traces = tuple[Trace, Trace]
Site = dict[str, Any]


@dataclass(frozen=True)
class Draw:
    """One sample of the latents.

    Attributes:
        strata: traces of the model and the guide, whose terms average to the sample's terms.
        whole: traces with latents sampled from q itself; None if not requested.
    """

    strata: list[Traces]
    whole: Traces | None


def draw(
    model: Any, guide: Any, args: Any, kwargs: Any, *, nesting: int | float, whole: bool
) -> Draw:
    """Sample the latents of a guide, and run the model with them.

    Enumerated discrete sites take all their values at once, in their own dimensions.

    If the single latent site is a mixture sum_k a_k q_k of K components for each datum,

        E_q[f(z)] = sum_k a_k E_{q_k}[f(z)]

    is estimated by a sample from each component, in traces whose sites have the scale K a_k. The
    gradient of the weights then compares f between components; a sample from q only sees f change
    near the sample, and so hardly ever compares distant components. ``whole`` adds a sample from q
    itself.

    This needs a model that is a sum over data, so q is sampled as any other distribution if a site
    of the model lies outside of the plates of z. A site inside them must be of its own datum: no
    factor may compare the z of different data.
    """
    if isinstance(poutine.unwrap(guide), Messenger):
        traces = get_importance_trace("flat", nesting, model, guide, args, kwargs)
        return Draw([traces], traces if whole else None)
    guide_trace, nesting, enumerating = enumerated_trace(guide, args, kwargs, nesting)

    def completed(trace: Trace, weight: Tensor | None = None) -> Traces:
        ran = _Ran(model, trace, weight, enumerating)
        return get_importance_trace("flat", nesting, model, ran, args, kwargs)

    def plain() -> Draw:
        traces = completed(guide_trace)
        return Draw([traces], traces if whole else None)

    name = _mixture(guide_trace)
    if name is None:
        return plain()
    plates = _plates(guide_trace.nodes[name])
    strata: list[Traces] = []
    for z, weight in by_component(guide_trace.nodes[name]["fn"]):
        stratum = guide_trace.copy()
        # Copy the sites too, since a copy of a trace shares them.
        stratum.nodes.update({key: dict(site) for key, site in guide_trace.nodes.items()})
        stratum.nodes[name]["value"] = z
        strata.append(completed(stratum, weight))
        if any(not plates <= _plates(site) for site in sample_sites(strata[0][0])):
            return plain()
    return Draw(strata, completed(guide_trace) if whole else None)


def by_component(q: DiagonalNormalMixture) -> list[tuple[Tensor, Tensor]]:
    """Return a draw z_k from each component of a mixture, with the weight K a_k of its terms.

    The gradient through z_k is divided by that weight. To the component's mean and scale, this is
    the natural gradient under the joint distribution of component and z, whose Fisher information
    has the factor a_k there. Under the plain gradient, which has that factor, the component of the
    largest weight learns fastest and gains weight, until it is the only one.

    References:
        Lin, Khan, Schmidt (2019), Fast and simple natural-gradient variational inference with
        mixture of exponential-family approximations.
    """
    draws = q.loc + q.scale * torch.randn_like(q.loc)
    weights = q.logits.exp() * q.loc.shape[-2]
    values = draws.detach()
    divided = values + (draws - values) / weights.detach().clamp(min=_LEAST_WEIGHT).unsqueeze(-1)
    return list(zip(divided.unbind(-2), weights.unbind(-1), strict=True))


def check_draws(name: str, q: Any, *, enumerated: bool = False) -> None:
    """Raise for a guide's site that is neither reparameterised nor enumerated."""
    if not q.has_rsample and not enumerated:
        raise ValueError(
            "every guide site must be reparameterised or enumerated for this objective, got "
            f"{type(q).__name__} at {name!r}; use pyro.infer.TraceGraph_ELBO, or mark a discrete "
            'site with infer={"enumerate": "parallel"} to have it summed out'
        )


def _mixture(guide_trace: Trace) -> str | None:
    """Return the name of the single latent site, if it is a mixture for each datum of a plate."""
    sites = sample_sites(guide_trace)
    if len(sites) != 1 or not isinstance(sites[0]["fn"], DiagonalNormalMixture):
        return None
    name: str = sites[0]["name"]
    return name if _plates(sites[0]) else None


class _Ran(Messenger):
    """Pose as a guide that has run, for ``get_importance_trace``, which then runs the model."""

    def __init__(
        self, model: Any, trace: Trace, weight: Tensor | None, enumerating: Enumerating
    ) -> None:
        super().__init__()
        self.model, self.trace, self.weight = model, trace, weight
        self.enumerating = enumerating

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        replayed = poutine.replay(self.model, trace=self.trace)
        with self.enumerating.checked_batch_norm():
            traced = poutine.trace(replayed, graph_type="flat")
            self.model_trace = traced.get_trace(*args, **kwargs)

    def get_traces(self) -> Traces:
        traces = self.model_trace, self.trace
        if self.weight is not None:
            for trace in traces:
                for site in trace.nodes.values():
                    if site["type"] == "sample" and _plates(site):
                        site["scale"] = site["scale"] * self.weight
        return traces


def _plates(site: Site) -> set[str]:
    """Return the names of the vectorised plates around a site."""
    frames = site["cond_indep_stack"]
    return {frame.name for frame in frames if frame.vectorized and frame.name != PARTICLES}
