"""Log weights of samples drawn together, checked against single samples."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pyro
import torch
from jaxtyping import Float
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_dpvae.distributions import map_draws
from pyro_dpvae.importance.summation import Summation, summed_out
from pyro_dpvae.importance.traces import paired_traces, sample_sites

__all__ = ["check_vectorized", "chunk_weights"]


def chunk_weights(
    model_trace: Trace, guide_trace: Trace, summation: Summation, size: int, batch: int
) -> Float[Tensor, "size batch"]:
    """Return the log weights of ``size`` samples drawn together, in float64.

    They are log sum_y p(x, y, z) - log sum_y q(y, z | x), with sums over the enumerated sites y.
    """
    model_trace.compute_log_prob()
    guide_trace.compute_log_prob()
    nesting, dims = summation.nesting, summation.dims(guide_trace)
    joint = []
    for trace in (model_trace, guide_trace):
        terms = []
        for site in sample_sites(trace):
            (dim,) = (
                frame.dim for frame in site["cond_indep_stack"] if frame.name == summation.plate
            )
            term = site["log_prob"].double()
            shape = [1] * (nesting + 1)
            shape[0], shape[dim] = size, batch
            term = term.expand(torch.broadcast_shapes(term.shape, shape))
            others = [d for d in range(-nesting, 0) if d != dim]
            terms.append(term.sum(others, keepdim=True) if others else term)
        joint.append(summed_out(terms, dims))
    return (joint[0] - joint[1]).reshape(size, batch)


def check_vectorized(
    model: Any,
    guide: Any,
    args: Any,
    kwargs: Any,
    *,
    batch: int,
    summation: Summation,
    singles: Sequence[tuple[Trace, Trace]],
) -> None:
    """Raise if the weights of two samples drawn together differ from those of single samples."""
    nesting, summed = summation.nesting, summation.names
    expected = torch.cat([chunk_weights(*traces, summation, 1, batch) for traces in singles])
    together = singles[0][1].copy()
    for name in summed:
        together.remove_node(name)  # it is enumerated again
    for name, site in together.nodes.items():
        if site["type"] == "sample" and not site_is_subsample(site):
            pads = (1,) * (nesting - len(site["fn"].batch_shape))
            draws = [guide_trace.nodes[name]["value"] for _, guide_trace in singles]
            site["value"] = map_draws(partial(_stacked, pads), *draws)
    plate = pyro.plate("importance", 2, dim=-nesting - 1)
    replayed = summation.enumerated(poutine.replay(plate(guide), trace=together))
    try:
        traces = paired_traces(plate(model), replayed, *args, **kwargs)
        found = chunk_weights(*traces, summation, 2, batch)
        same = torch.allclose(found, expected, rtol=1e-3, atol=1e-2, equal_nan=True)
        reason = "give other densities"
    except (RuntimeError, ValueError, IndexError) as error:
        same, reason = False, f"fail: {error}".splitlines()[0]
    if not same:
        raise ValueError(
            "model and guide cannot draw several samples at once: they must accept dimensions to "
            "the left of their "
            f"plates, and with them they {reason}; count dimensions from the right, as in "
            "softmax(-1), and expand data that are concatenated with samples"
        )


def _stacked(pads: tuple[int, ...], *draws: Tensor) -> Tensor:
    return torch.stack([draw.reshape(pads + draw.shape) for draw in draws])
