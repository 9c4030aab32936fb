"""The responses to the page's requests, as pure functions of a run and a request."""

import base64
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_dpvae._randomness import forked_rng
from pyro_dpvae.explore.asked import Asked
from pyro_dpvae.explore.pictures import decoded, decodes_to_means, numbers, shown
from pyro_dpvae.explore.ranks import standing
from pyro_dpvae.explore.state import SPACES, Explored, Place, place

__all__ = ["VIEWS", "cloud_view", "map_view", "point_view", "run_view", "taken_view"]

_MARGIN = 0.06  # margin of a panel, on each side
_ALIKE = 3.0  # axes share one scale if their extents differ by less
_LEAST = 1e-3  # smallest extent of an axis


def run_view(run: Explored, asked: Asked) -> dict[str, Any]:
    """Return everything that does not depend on the point."""
    asked.nothing_else()
    base = run.prior.base()
    z0 = run.clouds["prior"].z0.to(run.device)
    with torch.no_grad():
        normal = torch.distributions.Normal(0.0, 1.0).log_prob(z0).sum(-1)
        is_normal = torch.allclose(base.log_prob(z0), normal, atol=1e-3)
    return {
        "title": run.title,
        "facts": dict(run.facts),
        "latent_dim": run.latent_dim,
        "one_space": run.one_space,
        "base_is_normal": is_normal,
        "origin": numbers(run.origin),
        "spread": {space: numbers(run.spread[space]) for space in SPACES},
        "axes": {space: _most_active(run.spread[space]) for space in SPACES},
        "counts": {name: len(cloud.z) for name, cloud in run.clouds.items()},
        "held_out": len(run.held_out),
        "means": decodes_to_means(run),
        "labels": None if run.labels is None else run.labels.tolist(),
        "label_names": list(run.label_names),
        "points": None if run.points is None else numbers(run.points),
    }


def point_view(run: Explored, asked: Asked) -> dict[str, Any]:
    """Return a point in both spaces, its densities, ranks and picture.

    Raises:
        ValueError: if the point has no counterpart in the other space, or no picture.
    """
    space, values = asked.space(), asked.values(run.latent_dim)
    asked.nothing_else()
    here = _placed(run, values[None], space)
    if not (here.z.isfinite().all() and here.z0.isfinite().all()):
        raise ValueError(
            f"the point has no counterpart in the other space: it lies in {space} space and maps "
            "beyond the range of 32-bit numbers; choose a point closer to the data"
        )
    x = decoded(run, here.z[0])
    if not x.isfinite().all():
        raise ValueError(
            "the point does not decode to finite numbers; choose a point closer to the data"
        )
    stands = standing(here, run.clouds["prior"], run.clouds["aggregate"])
    return {
        "z": numbers(here.z[0]),
        "z0": numbers(here.z0[0]),
        "log_p": numbers(here.log_p[0]),
        "log_q": numbers(here.log_q[0]),
        "log_base": numbers(_log_base(run, here.z0)[0]),
        "q_among_prior": stands.q_among_prior,
        "p_among_aggregate": stands.p_among_aggregate,
        "kind": stands.kind,
        **shown(x),
    }


def map_view(run: Explored, asked: Asked) -> dict[str, Any]:
    """Return log-densities of both sides on rows of a grid, through a point, in one space.

    In generation space they are log p0(z0) and log q(z) - log |det dg/dz|, the densities of
    samples there. The grid has ``size`` x ``size`` cells, with the first row at the top. Densities
    at the cells' centres are encoded as float32 in base64, row by row.
    """
    space, values = asked.space(), asked.values(run.latent_dim)
    axes, box = asked.axes(run.latent_dim), asked.box()
    size, first, rows = asked.band()
    asked.nothing_else()
    cells = _cells(values, axes, box, size)[first * size : (first + rows) * size]
    there = _placed(run, cells, space)
    if space == "generation":
        log_p, log_q = _log_base(run, there.z0), there.log_q - there.log_det
        log_q = torch.where(there.log_q.isfinite(), log_q, -torch.inf)
    else:
        log_p, log_q = there.log_p, there.log_q
    return {"log_p": _packed(log_p), "log_q": _packed(log_q)}


def cloud_view(run: Explored, asked: Asked) -> dict[str, Any]:
    """Return two coordinates of the points of each cloud, and a box around them."""
    space, axes = asked.space(), list(asked.axes(run.latent_dim))
    asked.nothing_else()
    clouds = {name: cloud.coordinates(space)[:, axes] for name, cloud in run.clouds.items()}
    return {
        "clouds": {name: numbers(points) for name, points in clouds.items()},
        "box": _box(torch.cat(list(clouds.values()))),
    }


def taken_view(run: Explored, asked: Asked) -> dict[str, Any]:
    """Return one point: a sample of the prior, a pocket, a leak, or a held-out datum."""
    what = asked.choice("what", ("prior", "pockets", "leaks", "held-out"))
    index = asked.whole("index", 0, 2**31 - 1)
    asked.nothing_else()
    if what == "prior":
        with torch.no_grad(), forked_rng(index):
            return {"z": numbers(run.prior().sample((1,))[0])}
    if what == "held-out":
        index %= len(run.held_out)
        return {"z": numbers(run.held_out_means[index]), **shown(run.held_out[index])}
    points = run.clouds[what].z
    return {"z": numbers(points[index % len(points)])}


VIEWS: Mapping[str, Callable[[Explored, Asked], dict[str, Any]]] = {
    "run": run_view,
    "point": point_view,
    "map": map_view,
    "clouds": cloud_view,
    "take": taken_view,
}
"""The views by their names in an address: ``/api/NAME?q={...}``."""


def _placed(run: Explored, points: Tensor, space: str) -> Place:
    return place(run.prior, run.aggregate, points.to(run.device), space)


def _log_base(run: Explored, z0: Tensor) -> Tensor:
    known = z0.isfinite().all(-1)
    with torch.no_grad():
        log_p = run.prior.base().log_prob(torch.where(known[:, None], z0, 0.0).to(run.device))
    return torch.where(known, log_p.cpu(), -torch.inf)


def _cells(
    values: Tensor, axes: tuple[int, int], box: tuple[float, float, float, float], size: int
) -> Tensor:
    """Return the centres of all cells, of shape (size * size, L), rows from the top."""
    left, right, bottom, top = box
    steps = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    across, down = left + steps * (right - left), top - steps * (top - bottom)
    cells = values.repeat(size * size, 1)
    cells[:, axes[1]] = down.repeat_interleave(size).to(values.dtype)
    cells[:, axes[0]] = across.repeat(size).to(values.dtype)  # wins if both axes are the same
    return cells


def _box(points: Tensor) -> list[float]:
    """Return left, right, bottom and top of a box around points; keep circles round."""
    points = points[points.isfinite().all(-1)].double()
    low, high = points.quantile(0.002, dim=0), points.quantile(0.998, dim=0)
    extent = (high - low).clamp(min=_LEAST)
    if float(extent.max() / extent.min()) < _ALIKE:
        extent = extent.max().expand(2)
    half = extent * (0.5 + _MARGIN)
    centre = (low + high) / 2
    left, bottom = (centre - half).tolist()
    right, top = (centre + half).tolist()
    return [float(f"{value:.6g}") for value in (left, right, bottom, top)]


def _most_active(spread: Tensor) -> list[int]:
    """Return the two coordinates that vary most; the only one twice."""
    if len(spread) == 1:
        return [0, 0]
    return sorted(spread.topk(2).indices.tolist())


def _packed(values: Tensor) -> str:
    return base64.b64encode(values.float().numpy().astype("<f4").tobytes()).decode()
