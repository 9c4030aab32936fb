"""The sites of a Pyro program, and the plate over its batch."""

from collections.abc import Iterable
from typing import Any, NoReturn

from pyro.distributions import Unit
from pyro.poutine import Trace
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.util import site_is_subsample

from pyro_dpvae.sites import PLATE

__all__ = ["PARTICLES", "batch_plate", "refuse_single_datum", "sample_sites"]

Site = dict[str, Any]

PARTICLES = "num_particles_vectorized"
"""Pyro's name of the plate over the samples of an objective."""


def sample_sites(trace: Trace) -> list[Site]:
    """Return the sites with a density, without plates and deterministic sites."""
    return [
        site
        for site in trace.nodes.values()
        if site["type"] == "sample"
        and not site["infer"].get("_deterministic")
        and not site_is_subsample(site)
    ]


def batch_plate(
    observed: Iterable[Site], latent: Iterable[Site], *, name: str | None = None
) -> CondIndepStackFrame:
    """Find the plate over the batch among those of the observed sites.

    It is the plate with the given name; otherwise the one named ``"data"``; otherwise the
    outermost vectorized plate around all observed sites that also contains a latent site, if
    there is one. Factors, deterministic sites, and sites outside of all plates are ignored.

    Args:
        observed: the observed sites of the model.
        latent: its latent sites.
        name: name of the plate; None finds it.

    Raises:
        ValueError: if the plate does not exist, is ambiguous or a loop, or if no observed value
            has a batch dimension.
    """
    observed = list(observed)
    frames = {f.name: f for site in observed for f in site["cond_indep_stack"]}
    frames.pop(PARTICLES, None)
    if name is None:
        name = PLATE if PLATE in frames else _found(observed, latent)
    if name not in frames:
        raise ValueError(
            f"the model must observe its data inside pyro.plate({name!r}, batch size), "
            f"got observed sites {[site['name'] for site in observed]} "
            f"in plates {sorted(frames)}"
        )
    if not frames[name].vectorized:
        raise ValueError(
            f"the plate over the batch must be vectorized, got a loop over pyro.plate({name!r}, "
            "...); write 'with pyro.plate(...):' and observe the whole batch at once"
        )
    frame = frames[name]
    data = [site for site in observed if name in _names(site) and _is_data(site)]
    sizes = [_size(site, frame) for site in data]
    if data and frame.size not in sizes:
        shapes = {site["name"]: tuple(site["value"].shape) for site in data}
        if set(sizes) == {None}:
            refuse_single_datum(shapes, plate=name, size=frame.size)
        raise ValueError(
            f"model and guide must run on the same data, got {shapes} in the plate {name!r} of "
            f"{frame.size}; an autoguide is made for one batch: make another, or use an encoder"
        )
    return frame


def refuse_single_datum(shapes: dict[str, tuple[int, ...]], *, plate: str, size: int) -> NoReturn:
    """Raise for observed values of these shapes, which have no batch dimension."""
    raise ValueError(
        f"data must be batches with one item per row, got {shapes} in the plate {plate!r} of "
        f"{size}; pass one item as a batch of one: x.unsqueeze(0)"
    )


def _size(site: Site, plate: CondIndepStackFrame) -> int | None:
    """Return the batch size of a site's value; None if it has no batch dimension."""
    place = plate.dim - site["fn"].event_dim
    shape = site["value"].shape
    return shape[place] if len(shape) >= -place else None


def _is_data(site: Site) -> bool:
    """Return True for observed data; False for a factor or a deterministic site."""
    return not (isinstance(site["fn"], Unit) or site["infer"].get("_deterministic"))


def _found(observed: list[Site], latent: Iterable[Site]) -> str:
    """Return the name of the outermost plate around all sites; ``"data"`` without any plate."""
    stacks = [_names(site) for site in observed if _is_data(site)]
    stacks = [names for names in stacks if names]
    of_latents = [_names(site) for site in latent]
    if not stacks:
        looped = {f.name for site in observed for f in site["cond_indep_stack"]} - {PARTICLES}
        return min(looped) if len(looped) == 1 else PLATE
    common = [name for name in stacks[0] if all(name in names for names in stacks)]
    shared = [name for name in common if any(name in names for names in of_latents)]
    candidates = shared or common
    nested = [[one for one in names if one in candidates] for names in [*stacks, *of_latents]]
    outermost = {names[0] for names in nested if names}
    if len(outermost) != 1:
        names = sorted(set(candidates) or {name for names in stacks for name in names})
        raise ValueError(
            "the plate over the batch is ambiguous: it must be the outermost one around all "
            f"observed sites, got the candidates {names}; name it, such as plate={names[0]!r}"
        )
    return outermost.pop()


def _names(site: Site) -> list[str]:
    """Return the names of a site's vectorized plates, outermost first."""
    return [f.name for f in site["cond_indep_stack"] if f.vectorized and f.name != PARTICLES]
