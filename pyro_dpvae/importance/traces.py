"""A model and a guide as traces, and checks that their densities are of single data."""

from typing import Any

from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_dpvae.sites import PLATE

__all__ = [
    "check_latents",
    "checked_nesting",
    "paired_traces",
    "sample_sites",
]

Site = dict[str, Any]


def paired_traces(model: Any, guide: Any, x: Tensor) -> tuple[Trace, Trace]:
    """Return the traces of the model, with the latents of the guide, and of the guide."""
    guide_trace = poutine.trace(guide).get_trace(x)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(x)
    return model_trace, guide_trace


def check_latents(model_trace: Trace, guide_trace: Trace) -> None:
    """Refuse programs that differ in their latent sites.

    Raises:
        ValueError: with both lists.
    """
    model, guide = (
        sorted(site["name"] for site in sample_sites(trace) if not site["is_observed"])
        for trace in (model_trace, guide_trace)
    )
    if model != guide:
        raise ValueError(
            f"model and guide must have the same latent sites, got {model} and {guide}; "
            "sample or observe the others in both"
        )


def checked_nesting(model_trace: Trace, guide_trace: Trace, batch: int) -> int:
    """Return how deep the plates nest, of programs whose weights belong to single data."""
    check_latents(model_trace, guide_trace)
    nesting = 0
    for site in [*sample_sites(model_trace), *sample_sites(guide_trace)]:
        frames = {frame.name: frame for frame in site["cond_indep_stack"]}
        if PLATE not in frames:
            raise ValueError(
                "importance weights are of each datum, so every site must lie inside "
                f"pyro.plate({PLATE!r}, batch size), got {site['name']!r} in plates "
                f"{sorted(frames)}; condition the model on it, or draw it for each datum"
            )
        if not frames[PLATE].vectorized or frames[PLATE].size != batch:
            raise ValueError(
                f"pyro.plate({PLATE!r}, ...) must hold the batch of {batch} at once, got one of "
                f"{frames[PLATE].size}{'' if frames[PLATE].vectorized else ', in a loop'} at "
                f"{site['name']!r}"
            )
        scale = site["scale"]
        if (scale != 1).any() if isinstance(scale, Tensor) else scale != 1:
            raise ValueError(
                f"importance weights need sites of scale 1, got {scale} at {site['name']!r}; "
                "use a plate of the batch's own size, and no poutine.scale"
            )
        nesting = max([nesting, *(-frame.dim for frame in frames.values() if frame.vectorized)])
    return nesting


def sample_sites(trace: Trace) -> list[Site]:
    """Return the sites that have a density: not plates, nor deterministic ones."""
    return [
        site
        for site in trace.nodes.values()
        if site["type"] == "sample"
        and not site["infer"].get("_deterministic")
        and not site_is_subsample(site)
    ]
