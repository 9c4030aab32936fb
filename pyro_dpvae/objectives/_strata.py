"""Traces of a model and a guide, drawn component by component where q(z | x) is a mixture."""

from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.infer.enum import get_importance_trace
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_dpvae.distributions import DiagonalNormalMixture
from pyro_dpvae.objectives._enumeration import enumerated_trace
from pyro_dpvae.sites import PLATE

__all__ = ["Draw", "draw"]

Traces = tuple[Trace, Trace]
Site = dict[str, Any]


@dataclass(frozen=True)
class Draw:
    """One draw of the latents.

    Attributes:
        strata: traces of the model and the guide, whose terms have the draw's terms as their mean.
        whole: traces with latents drawn from q itself; None where nobody has asked for them.
    """

    strata: list[Traces]
    whole: Traces | None


def draw(
    model: Any, guide: Any, args: Any, kwargs: Any, *, nesting: int | float, whole: bool
) -> Draw:
    """Draw the latents of a guide, and run the model with them.

    Discrete sites that ask for it take all their values at once, in dimensions of their own.

    Where the one latent site is a mixture sum_k a_k q_k of K components for each datum,

        E_q[f(z)] = sum_k a_k E_{q_k}[f(z)]

    is estimated by a draw from each component, in traces whose sites have the scale K a_k. It has
    a gradient to the weights from what f is at each component; one through a draw from q sees f
    change along the draw alone, and so hardly ever sees how components apart compare.

    Args:
        model: p(x, z).
        guide: q(z | x).
        args: of both.
        kwargs: of both.
        nesting: a bound on the depth of plates.
        whole: whether a draw from q itself is needed as well.
    """
    if isinstance(poutine.unwrap(guide), Messenger):
        traces = get_importance_trace("flat", nesting, model, guide, args, kwargs)
        return Draw([traces], traces)
    guide_trace, nesting = enumerated_trace(guide, args, kwargs, nesting)
    name = _mixture(guide_trace)
    if name is None:
        traces = _completed(model, guide_trace, args, kwargs, nesting)
        return Draw([traces], traces)
    q = guide_trace.nodes[name]["fn"]
    draws = (q.loc + q.scale * torch.randn_like(q.loc)).unbind(-2)
    weights = (q.logits.exp() * len(draws)).unbind(-1)
    strata = []
    for z, weight in zip(draws, weights, strict=True):
        stratum = guide_trace.copy()
        # Of its own sites: a copy of a trace shares them.
        stratum.nodes.update({key: dict(site) for key, site in guide_trace.nodes.items()})
        stratum.nodes[name]["value"] = z
        strata.append(_completed(model, stratum, args, kwargs, nesting, weight=weight))
    return Draw(strata, _completed(model, guide_trace, args, kwargs, nesting) if whole else None)


def _mixture(guide_trace: Trace) -> str | None:
    """Return the one latent site, if it is a mixture for each datum."""
    sites = [
        site
        for site in guide_trace.nodes.values()
        if site["type"] == "sample" and not site_is_subsample(site)
    ]
    if len(sites) != 1 or not isinstance(sites[0]["fn"], DiagonalNormalMixture):
        return None
    name: str = sites[0]["name"]
    return name if _in_plate(sites[0]) else None


def _completed(
    model: Any,
    guide_trace: Trace,
    args: Any,
    kwargs: Any,
    nesting: int | float,
    *,
    weight: Tensor | None = None,
) -> Traces:
    """Return the traces, with the model run on the latents of the guide's."""
    drawn = _Drawn(model, guide_trace, weight)
    return get_importance_trace("flat", nesting, model, drawn, args, kwargs)


class _Drawn(Messenger):
    """A guide that has run, for ``get_importance_trace``."""

    def __init__(self, model: Any, trace: Trace, weight: Tensor | None) -> None:
        super().__init__()
        self.model, self.trace, self.weight = model, trace, weight

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        replayed = poutine.replay(self.model, trace=self.trace)
        self.model_trace = poutine.trace(replayed, graph_type="flat").get_trace(*args, **kwargs)

    def get_traces(self) -> Traces:
        traces = self.model_trace, self.trace
        if self.weight is not None:
            for trace in traces:
                for site in trace.nodes.values():
                    # Sites outside the plate of the data do not depend on what is drawn in it.
                    if site["type"] == "sample" and _in_plate(site):
                        site["scale"] = site["scale"] * self.weight
        return traces


def _in_plate(site: Site) -> bool:
    return PLATE in {frame.name for frame in site["cond_indep_stack"]}
