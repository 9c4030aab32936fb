"""A model and a guide as traces: their log weights, and checks that these are of single data."""

from collections.abc import Sequence
from typing import Any

import pyro
import torch
from jaxtyping import Float
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_dpvae.sites import PLATE

__all__ = [
    "check_latents",
    "check_vectorized",
    "checked_nesting",
    "chunk_weights",
    "paired_traces",
    "sample_sites",
]

Site = dict[str, Any]


def paired_traces(model: Any, guide: Any, x: Tensor) -> tuple[Trace, Trace]:
    """Return the traces of the model, with the latents of the guide, and of the guide."""
    guide_trace = poutine.trace(guide).get_trace(x)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(x)
    return model_trace, guide_trace


def chunk_weights(
    model_trace: Trace, guide_trace: Trace, nesting: int, size: int, batch: int
) -> Float[Tensor, "size batch"]:
    """Return the log weights of ``size`` draws made together, in float64."""
    model_trace.compute_log_prob()
    guide_trace.compute_log_prob()
    total: Any = 0.0
    for sign, trace in ((1, model_trace), (-1, guide_trace)):
        for site in sample_sites(trace):
            (dim,) = (frame.dim for frame in site["cond_indep_stack"] if frame.name == PLATE)
            term = site["log_prob"].double()
            shape = [1] * (nesting + 1)
            shape[0], shape[dim] = size, batch
            term = term.expand(torch.broadcast_shapes(term.shape, shape))
            others = [d for d in range(-term.dim(), 0) if d not in (dim, -nesting - 1)]
            total = total + sign * (term.sum(others) if others else term)
    return torch.as_tensor(total, dtype=torch.float64).expand(size, batch)


def check_vectorized(
    model: Any, guide: Any, x: Tensor, nesting: int, singles: Sequence[tuple[Trace, Trace]]
) -> None:
    """Refuse programs that weigh two draws otherwise together than one by one."""
    expected = torch.cat([chunk_weights(*traces, nesting, 1, len(x)) for traces in singles])
    together = singles[0][1].copy()
    for name, site in together.nodes.items():
        if site["type"] == "sample" and not site_is_subsample(site):
            pads = (1,) * (nesting - len(site["fn"].batch_shape))
            draws = [guide_trace.nodes[name]["value"] for _, guide_trace in singles]
            site["value"] = torch.stack([draw.reshape(pads + draw.shape) for draw in draws])
    plate = pyro.plate("importance", 2, dim=-nesting - 1)
    try:
        traces = paired_traces(plate(model), poutine.replay(plate(guide), trace=together), x)
        found = chunk_weights(*traces, nesting, 2, len(x))
        same = torch.allclose(found, expected, rtol=1e-3, atol=1e-2, equal_nan=True)
        reason = "give other densities"
    except (RuntimeError, ValueError, IndexError) as error:
        same, reason = False, f"fail: {error}".splitlines()[0]
    if not same:
        raise ValueError(
            "several draws at once need model and guide to take dimensions to the left of their "
            f"plates, and with them they {reason}; count dimensions from the right, as in "
            "softmax(-1), and expand data that are joined with draws"
        )


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
