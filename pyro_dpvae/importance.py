"""Importance sampling of log p(x): the weights p(x, z) / q(z | x), and what follows from them.

Pyro has two relatives. ``pyro.infer.Importance`` keeps one weight for a whole program, right for
one datum at a time; ``pyro.infer.importance.vectorized_importance_weights`` sums over plates only
where it is told the nesting, and scales what is subsampled. Here weights are of each datum.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyro
import torch
from jaxtyping import Float
from pyro import poutine
from pyro.ops.stats import fit_generalized_pareto
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.sites import PLATE

__all__ = [
    "check_latents",
    "effective_sample_size",
    "iwae_bound",
    "log_mean_exp",
    "log_weight_chunks",
    "log_weights",
    "paired_traces",
    "pareto_k",
    "pareto_k_of_tail",
    "sample_sites",
    "tail_length",
]

# Values of x that one chunk decodes, and data: 16 MB a layer of a datum's size, in float32, and
# 128 MB a layer of 512 units.
_CHUNK_VALUES, _CHUNK_DATA = 2**22, 2**16

Site = dict[str, Any]


def log_weights(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    samples: int,
    *,
    chunk: int | None = None,
) -> Float[Tensor, "samples batch"]:
    """Return log p(x, z_k) - log q(z_k | x) of ``samples`` draws z_k ~ q(z | x) for each datum.

    Args:
        model: p(x, z), a Pyro model called with x.
        guide: q(z | x), a Pyro guide called with x.
        x: data, of shape (batch, *data).
        samples: the number K of draws for each datum.
        chunk: how many draws are made at once; by default as many as suit the memory. Model and
            guide see them as a dimension to the left of their plates.

    Returns:
        The log weights in nats, in float64, of shape (K, batch).

    Raises:
        ValueError: if a latent or observed site lies outside ``pyro.plate("data", batch size)``,
            if the plate subsamples or a site is scaled, if the two programs do not share their
            latent sites or cannot make several draws at once, if there are no data, or if a
            count is below 1.

    References:
        Rezende, Mohamed, Wierstra (2014), Stochastic backpropagation, appendix E.

    Example:
        >>> from pyro_dpvae.recipes import build_system
        >>> system = build_system(
        ...     (2,),
        ...     latent_dim=2,
        ...     dataset_size=100,
        ...     prior={"name": "coupling"},
        ...     likelihood={"name": "gaussian", "variance": 0.1},
        ...     network={"name": "moons"},
        ...     guide={"name": "amortized"},
        ...     objective={"name": "elbo"},
        ... )
        >>> log_weights(system.model, system.guide, torch.zeros(3, 2), 50).shape
        torch.Size([50, 3])
    """
    return torch.cat(list(log_weight_chunks(model, guide, x, samples, chunk=chunk)))


def log_weight_chunks(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    samples: int,
    *,
    chunk: int | None = None,
) -> Iterator[Float[Tensor, "chunk batch"]]:
    """Yield the log weights of :func:`log_weights` chunk by chunk, for running sums.

    Raises:
        ValueError: as :func:`log_weights` does, before the first chunk.
    """
    check_positive_int("samples", samples)
    if x.numel() == 0:
        raise ValueError(f"importance weights need data, got a batch of shape {tuple(x.shape)}")
    if chunk is None:
        chunk = max(1, min(_CHUNK_VALUES // x.numel(), _CHUNK_DATA // len(x)))
    check_positive_int("chunk", chunk)
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        singles = [paired_traces(model, guide, x) for _ in range(2)]
        nesting = _checked_nesting(*singles[0], len(x))
        _check_vectorized(model, guide, x, nesting, singles)
    done = 0
    while done < samples:
        size = min(chunk, samples - done)
        # The first pass has checked shapes and supports.
        with torch.no_grad(), pyro.validation_enabled(False):
            plate = pyro.plate("importance", size, dim=-nesting - 1)
            traces = paired_traces(plate(model), plate(guide), x)
            weights = _chunk_weights(*traces, nesting, size, len(x))
        yield weights
        done += size


def log_mean_exp(weights: Float[Tensor, "samples *batch"]) -> Float[Tensor, "*batch"]:
    """Return log 1/K sum_k w_k of log weights: the estimate of log p(x), biased downwards."""
    return weights.logsumexp(0) - math.log(len(weights))


def iwae_bound(weights: Float[Tensor, "samples batch"], k: int) -> Float[Tensor, " batch"]:
    """Return the importance-weighted bound with ``k`` samples, E[log 1/k sum w], of log weights.

    It is averaged over the samples / k groups of the draws; k = 1 gives the evidence lower bound.

    Raises:
        ValueError: if ``k`` does not divide the number of samples.

    References:
        Burda, Grosse, Salakhutdinov (2016), Importance weighted autoencoders, equation 8.
    """
    if len(weights) % check_positive_int("k", k):
        raise ValueError(f"k must divide the number of samples, {len(weights)}, got {k}")
    return log_mean_exp(weights.unflatten(0, (-1, k)).transpose(0, 1)).mean(0)


def effective_sample_size(weights: Float[Tensor, "samples *batch"]) -> Float[Tensor, "*batch"]:
    """Return (sum w)^2 / sum w^2 of log weights, from 1 to the number of samples."""
    return (2 * weights.logsumexp(0) - (2 * weights).logsumexp(0)).exp()


def tail_length(samples: int) -> int:
    """Return how many of the largest weights the Pareto fit takes: min(K / 5, 3 sqrt(K))."""
    return math.ceil(min(samples / 5, 3 * math.sqrt(samples)))


def pareto_k(weights: Float[Tensor, "samples batch"]) -> Float[Tensor, " batch"]:
    """Return k-hat, the shape of a Pareto distribution fitted to the largest weights.

    Below 0.7 the estimate of log p(x) can be relied on; above 1 the weights have no mean. It is
    infinite where fewer than five weights stand out.

    Args:
        weights: log weights.

    References:
        Vehtari, Simpson, Gelman, Yao, Gabry (2024), Pareto smoothed importance sampling, section
        3.
    """
    largest = weights.topk(min(tail_length(len(weights)) + 1, len(weights)), dim=0).values
    return pareto_k_of_tail(largest)


def pareto_k_of_tail(largest: Float[Tensor, "tail batch"]) -> Float[Tensor, " batch"]:
    """Return k-hat from the :func:`tail_length` largest log weights and one more, downwards."""
    shifted = (largest - largest[0]).double().cpu()
    cutoff = shifted[-1].clamp(min=math.log(torch.finfo(torch.float64).tiny))
    found = []
    for column, least in zip(shifted.T, cutoff, strict=True):
        above = column[column > least].flip(0)
        if len(above) <= 4:
            found.append(math.inf)
            continue
        k, _ = fit_generalized_pareto(above.exp() - least.exp())
        found.append(float(k))
    return torch.tensor(found, dtype=torch.float64)


def paired_traces(model: Any, guide: Any, x: Tensor) -> tuple[Trace, Trace]:
    """Return the traces of the model, with the latents of the guide, and of the guide."""
    guide_trace = poutine.trace(guide).get_trace(x)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(x)
    return model_trace, guide_trace


def _chunk_weights(
    model_trace: Trace, guide_trace: Trace, nesting: int, size: int, batch: int
) -> Tensor:
    model_trace.compute_log_prob()
    guide_trace.compute_log_prob()
    total = torch.zeros(size, batch, dtype=torch.float64)
    for sign, trace in ((1, model_trace), (-1, guide_trace)):
        for site in sample_sites(trace):
            (dim,) = (frame.dim for frame in site["cond_indep_stack"] if frame.name == PLATE)
            term = site["log_prob"].double()
            shape = [1] * (nesting + 1)
            shape[0], shape[dim] = size, batch
            term = term.expand(torch.broadcast_shapes(term.shape, shape))
            others = [d for d in range(-term.dim(), 0) if d not in (dim, -nesting - 1)]
            total = total.to(term.device) + sign * (term.sum(others) if others else term)
    return total


def _check_vectorized(
    model: Any, guide: Any, x: Tensor, nesting: int, singles: Sequence[tuple[Trace, Trace]]
) -> None:
    """Refuse programs that weigh two draws otherwise together than one by one."""
    expected = torch.cat([_chunk_weights(*traces, nesting, 1, len(x)) for traces in singles])
    together = singles[0][1].copy()
    for name, site in together.nodes.items():
        if site["type"] == "sample" and not site_is_subsample(site):
            pads = (1,) * (nesting - len(site["fn"].batch_shape))
            draws = [guide_trace.nodes[name]["value"] for _, guide_trace in singles]
            site["value"] = torch.stack([draw.reshape(pads + draw.shape) for draw in draws])
    plate = pyro.plate("importance", 2, dim=-nesting - 1)
    try:
        traces = paired_traces(plate(model), poutine.replay(plate(guide), trace=together), x)
        found = _chunk_weights(*traces, nesting, 2, len(x))
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


def _checked_nesting(model_trace: Trace, guide_trace: Trace, batch: int) -> int:
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
