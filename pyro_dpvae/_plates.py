"""Which plate of a Pyro program is the one over its batch."""

from collections.abc import Iterable
from typing import Any

from pyro.distributions import Unit
from pyro.poutine.indep_messenger import CondIndepStackFrame

from pyro_dpvae.sites import PLATE

__all__ = ["PARTICLES", "batch_plate", "holds_batch"]

Site = dict[str, Any]

PARTICLES = "num_particles_vectorized"
"""Pyro's name of the plate of an objective's samples."""


def batch_plate(
    observed: Iterable[Site], latent: Iterable[Site], *, name: str | None = None
) -> CondIndepStackFrame:
    """Return the plate over the batch, as an observed site saw it.

    It is the plate of the given name, or else the one named ``"data"``, or else the outermost
    vectorized plate around all observed sites, and around a latent site where one shares such a
    plate. Factors, and observed sites outside of all plates, do not count.

    Args:
        observed: the observed sites of the model.
        latent: its latent sites.
        name: of the plate, where it cannot be found.

    Raises:
        ValueError: if there is no such plate, if several may be it, or if it is a loop.
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
    return frames[name]


def holds_batch(site: Site, plate: CondIndepStackFrame) -> bool:
    """Whether the value of a site has one entry for each datum of the plate."""
    place = plate.dim - site["fn"].event_dim
    shape = site["value"].shape
    return len(shape) >= -place and bool(shape[place] == plate.size)


def _found(observed: list[Site], latent: Iterable[Site]) -> str:
    """Return the name of the outermost plate around all sites; ``"data"`` if there is no plate."""
    stacks = [_names(site) for site in observed if not isinstance(site["fn"], Unit)]
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
            "the plate over the batch is the outermost one around all observed sites, got the "
            f"candidates {names}; say which it is: plate={names[0]!r}"
        )
    return outermost.pop()


def _names(site: Site) -> list[str]:
    """Return the vectorized plates of a site, outermost first."""
    return [f.name for f in site["cond_indep_stack"] if f.vectorized and f.name != PARTICLES]
