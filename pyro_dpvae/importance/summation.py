"""Discrete latents that are summed out of importance weights."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, final

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from pyro_dpvae.importance.traces import sample_sites

__all__ = ["Summation", "summable", "summed_out"]


@final
@dataclass(frozen=True)
class Summation:
    """How a guide runs for its weights: samples to the left of plates, enumeration further left.

    Attributes:
        plate: name of the plate over the batch.
        nesting: nesting depth of the plates of model and guide.
        names: names of the sites that are summed out.
    """

    plate: str
    nesting: int
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
    guide: Callable[..., Any], trace: Trace, args: Any, kwargs: Any, *, plate: str, nesting: int
) -> Summation:
    """Find the enumerated discrete sites on which no sample depends.

    A site is enumerated by ``infer={"enumerate": "parallel"}``. If z is sampled from q(z | x, y),
    then y is sampled as well; so are sites inside plates other than the data's.

    Args:
        guide: q(y, z | x).
        trace: a trace of the guide, with single samples of all sites.
        args: arguments of the guide.
        kwargs: keyword arguments of the guide.
        plate: name of the plate over the batch.
        nesting: nesting depth of plates.
    """
    names = {site["name"] for site in sample_sites(trace) if _asks(site, plate)}
    while names:
        found = Summation(plate, nesting, frozenset(names))
        tried = poutine.trace(found.enumerated(guide)).get_trace(*args, **kwargs)
        dims = found.dims(tried)
        drawn = [
            site["fn"].batch_shape for site in sample_sites(tried) if site["name"] not in names
        ]
        parents = {name for dim, name in dims.items() if any(_varies(one, dim) for one in drawn)}
        if not parents:
            return found
        names -= parents
    return Summation(plate, nesting)


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
