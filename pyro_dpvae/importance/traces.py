"""Traces of a model and a guide, and checks that their densities factor over data."""

from typing import Any

from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_dpvae._plates import batch_plate

__all__ = [
    "check_latents",
    "checked_plates",
    "paired_traces",
    "sample_sites",
]

Site = dict[str, Any]


def paired_traces(model: Any, guide: Any, *args: Any, **kwargs: Any) -> tuple[Trace, Trace]:
    """Return the traces of the model, with the guide's latents, and of the guide."""
    guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
    replayed = poutine.replay(model, trace=guide_trace)
    return poutine.trace(replayed).get_trace(*args, **kwargs), guide_trace


def check_latents(model_trace: Trace, guide_trace: Trace) -> None:
    """Raise unless model and guide have the same latent sites.

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


def checked_plates(
    model_trace: Trace, guide_trace: Trace, *, batch: int, plate: str | None
) -> tuple[str, int]:
    """Return the plate over the batch and the nesting depth, if weights factor over data.

    Args:
        model_trace: trace of the model.
        guide_trace: trace of the guide.
        batch: the batch size.
        plate: name of the plate; None finds it.

    Raises:
        ValueError: if the weights do not factor over data.
    """
    check_latents(model_trace, guide_trace)
    sites = sample_sites(model_trace)
    observed = [site for site in sites if site["is_observed"]]
    latent = [site for site in sites if not site["is_observed"]]
    name: str = batch_plate(observed, latent, name=plate).name
    nesting = 0
    for site in [*sites, *sample_sites(guide_trace)]:
        frames = {frame.name: frame for frame in site["cond_indep_stack"]}
        if name not in frames:
            raise ValueError(
                "importance weights are computed for each datum, so every site must lie inside "
                f"pyro.plate({name!r}, batch size), got {site['name']!r} in plates "
                f"{sorted(frames)}; condition the model on it, or sample it for each datum"
            )
        if not frames[name].vectorized or frames[name].size != batch:
            raise ValueError(
                f"pyro.plate({name!r}, ...) must hold the batch of {batch} at once, got one of "
                f"{frames[name].size}{'' if frames[name].vectorized else ', in a loop'} at "
                f"{site['name']!r}"
            )
        scale = site["scale"]
        if (scale != 1).any() if isinstance(scale, Tensor) else scale != 1:
            raise ValueError(
                f"importance weights need sites of scale 1, got {scale} at {site['name']!r}; "
                "use a plate of the batch's own size, and no poutine.scale"
            )
        nesting = max([nesting, *(-frame.dim for frame in frames.values() if frame.vectorized)])
    return name, nesting


def sample_sites(trace: Trace) -> list[Site]:
    """Return the sites with a density, without plates and deterministic sites."""
    return [
        site
        for site in trace.nodes.values()
        if site["type"] == "sample"
        and not site["infer"].get("_deterministic")
        and not site_is_subsample(site)
    ]
