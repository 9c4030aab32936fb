"""Log weights of samples drawn together, from traces whose densities factor over data."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, final

import pyro
import torch
from jaxtyping import Float
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_dpvae._plates import batch_plate, sample_sites
from pyro_dpvae.distributions import map_draws

__all__ = [
    "Summation",
    "check_latents",
    "check_vectorized",
    "checked_plates",
    "chunk_weights",
    "paired_traces",
    "summable",
    "summed_out",
]

Site = dict[str, Any]


def paired_traces(model: Any, guide: Any, *args: Any, **kwargs: Any) -> tuple[Trace, Trace]:
    """Return the traces of the model, with the guide's latents, and of the guide."""
    guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
    replayed = poutine.replay(model, trace=guide_trace)
    return poutine.trace(replayed).get_trace(*args, **kwargs), guide_trace


def check_latents(model_trace: Trace, guide_trace: Trace) -> None:
    """Raise unless model and guide have the same latent sites, besides auxiliary ones.

    An auxiliary site is of the guide alone, and the guide computes latents of the model from it,
    as Pyro's autoguides do.

    Raises:
        ValueError: with both lists.
    """
    model, guide = (
        sorted(
            site["name"]
            for site in sample_sites(trace)
            if not (site["is_observed"] or site["infer"].get("is_auxiliary"))
        )
        for trace in (model_trace, guide_trace)
    )
    if model != guide:
        raise ValueError(
            f"model and guide must have the same latent sites, got {model} and {guide}; "
            "sample or observe the others in both"
        )


def checked_plates(
    model_trace: Trace, guide_trace: Trace, *, batch: int, plate: str | None
) -> "Summation":
    """Return the plates, with no site summed out, if weights factor over data.

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
    return Summation(name, nesting, batch)


@final
@dataclass(frozen=True)
class Summation:
    """How a guide runs for its weights: samples to the left of plates, enumeration further left.

    Attributes:
        plate: name of the plate over the batch.
        nesting: nesting depth of the plates of model and guide.
        batch: the batch size.
        names: names of the sites that are summed out.
    """

    plate: str
    nesting: int
    batch: int
    names: frozenset[str] = frozenset()

    def enumerated(self, guide: Callable[..., Any]) -> Callable[..., Any]:
        """Return the guide with the values of each summed site in its own dimension."""
        if not self.names:
            return guide
        drawn = poutine.infer_config(
            guide, lambda site: {} if site["name"] in self.names else {"enumerate": None}
        )
        made: Callable[..., Any] = poutine.enum(drawn, first_available_dim=-self.nesting - 2)
        return made

    def dims(self, guide_trace: Trace) -> dict[int, str]:
        """Return the summed sites of a trace by the dimensions of their values."""
        nodes = guide_trace.nodes
        return {nodes[name]["infer"]["_enumerate_dim"]: name for name in sorted(self.names)}


def summable(
    guide: Callable[..., Any], trace: Trace, args: Any, kwargs: Any, plates: Summation
) -> Summation:
    """Find the enumerated discrete sites on which no sample depends.

    A site is enumerated by ``infer={"enumerate": "parallel"}``. If z is sampled from q(z | x, y),
    then y is sampled as well; so are sites inside plates other than the data's.

    Args:
        guide: q(y, z | x).
        trace: a trace of the guide, with single samples of all sites.
        args: arguments of the guide.
        kwargs: keyword arguments of the guide.
        plates: the plates of model and guide.
    """
    names = {site["name"] for site in sample_sites(trace) if _asks(site, plates.plate)}
    while names:
        found = replace(plates, names=frozenset(names))
        tried = poutine.trace(found.enumerated(guide)).get_trace(*args, **kwargs)
        dims = found.dims(tried)
        drawn = [
            site["fn"].batch_shape for site in sample_sites(tried) if site["name"] not in names
        ]
        parents = {name for dim, name in dims.items() if any(_varies(one, dim) for one in drawn)}
        if not parents:
            return found
        names -= parents
    return plates


def summed_out(terms: Iterable[Tensor], dims: Iterable[int]) -> Tensor:
    """Return log sum exp of the sum of terms over some dimensions, which keep size 1.

    Sums one dimension at a time, and only the terms that have it: independent sites cost the sum
    of their numbers of values, not the product.
    """
    left, pending = list(terms), sorted(dims)

    def holders(dim: int) -> list[Tensor]:
        return [term for term in left if _varies(term.shape, dim)]

    def cost(dim: int) -> int:
        return torch.broadcast_shapes(*(term.shape for term in holders(dim))).numel()

    while pending:
        dim = min(pending, key=cost)
        pending.remove(dim)
        held = holders(dim)
        if held:
            others = [term for term in left if not _varies(term.shape, dim)]
            joined = sum(held[1:], start=held[0])
            left = [*others, joined.logsumexp(dim, keepdim=True)]
    return torch.as_tensor(sum(left), dtype=torch.float64)


def _asks(site: dict[str, Any], plate: str) -> bool:
    infer = site["infer"]
    plates = {frame.name for frame in site["cond_indep_stack"] if frame.vectorized}
    wanted = infer.get("enumerate") == "parallel" and infer.get("num_samples") is None
    supported = site["fn"].has_enumerate_support and not site["is_observed"]
    return wanted and supported and plates == {plate}


def _varies(shape: torch.Size, dim: int) -> bool:
    return len(shape) >= -dim and shape[dim] > 1


def chunk_weights(
    model_trace: Trace, guide_trace: Trace, summation: Summation, size: int
) -> Float[Tensor, "size batch"]:
    """Return log sum_y p(x, y, z) - log sum_y q(y, z | x), with sums over enumerated sites y."""
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
            shape[0], shape[dim] = size, summation.batch
            term = term.expand(torch.broadcast_shapes(term.shape, shape))
            others = [d for d in range(-nesting, 0) if d != dim]
            terms.append(term.sum(others, keepdim=True) if others else term)
        joint.append(summed_out(terms, dims))
    return (joint[0] - joint[1]).reshape(size, summation.batch)


def check_vectorized(
    model: Any,
    guide: Any,
    args: Any,
    kwargs: Any,
    *,
    summation: Summation,
    singles: Sequence[tuple[Trace, Trace]],
) -> None:
    """Raise if the weights of two samples drawn together differ from those of single samples."""
    expected = torch.cat([chunk_weights(*traces, summation, 1) for traces in singles])
    together = singles[0][1].copy()
    for name in summation.names:
        together.remove_node(name)  # it is enumerated again
    for name, site in together.nodes.items():
        if site["type"] == "sample" and not site_is_subsample(site):
            pads = (1,) * (summation.nesting - len(site["fn"].batch_shape))
            draws = [guide_trace.nodes[name]["value"] for _, guide_trace in singles]
            site["value"] = map_draws(partial(_stacked, pads), *draws)
    plate = pyro.plate("importance", 2, dim=-summation.nesting - 1)
    replayed = summation.enumerated(poutine.replay(plate(guide), trace=together))
    try:
        traces = paired_traces(plate(model), replayed, *args, **kwargs)
        found = chunk_weights(*traces, summation, 2)
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
