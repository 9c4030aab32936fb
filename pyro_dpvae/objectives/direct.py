"""Terms of this library's systems, from q(z | x), p(z) and p(x | z), without Pyro's handlers."""

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakSet

from pyro.distributions.util import scale_and_mask
from pyro.poutine import runtime
from pyro.poutine.broadcast_messenger import BroadcastMessenger
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor

from pyro_dpvae._plates import refuse_single_datum
from pyro_dpvae.distributions import DiagonalNormalMixture
from pyro_dpvae.objectives._divergence import (
    coordinate_divergence,
    expected_log_density,
    known_divergence,
)
from pyro_dpvae.objectives._draws import by_component, check_draws
from pyro_dpvae.objectives.penalties import Latents, LatentSite
from pyro_dpvae.objectives.rates import SiteRate
from pyro_dpvae.objectives.terms import Terms, averaged
from pyro_dpvae.ownership import is_plain
from pyro_dpvae.sites import LATENT, OBSERVED, PLATE

__all__ = ["direct_terms"]

# Models and guides whose parts are Pyro programs themselves.
_TRACED: WeakSet[Any] = WeakSet()


def direct_terms(
    model: Any,
    guide: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    coordinates: bool,
    penalties: bool,
    count: int,
) -> Terms | None:
    """Return the terms of a batch, equal bit for bit to those from traces.

    Returns:
        None if the programs are not just z ~ posterior(x), and z ~ prior(); x ~ decoder(z), or if
        active Pyro handlers must see them.
    """
    if not (is_plain(model) and is_plain(guide)) or _handled():
        return None
    if model in _TRACED or guide in _TRACED:
        return None
    if kwargs or len(args) != 1 or not isinstance(args[0], Tensor) or not args[0].numel():
        return None
    (x,) = args
    if not x.dim():
        return None
    try:
        q = _distribution(guide, "posterior", LATENT, x, size=len(x))
        check_draws(LATENT, q)
        z = q()
        components = by_component(q) if isinstance(q, DiagonalNormalMixture) else [(z, 1.0)]
        draws = [_drawn(model, q, x, each, weight) for each, weight in components]
        whole = draws
        if penalties and isinstance(q, DiagonalNormalMixture):
            whole = [_drawn(model, q, x, z)]
    except _NotPlainError:
        return None
    distortions, rates = [], []
    for (site, likelihood, prior), (_, weight) in zip(draws, components, strict=True):
        total = known_divergence(q, site.prior)
        if total is None:
            expected = expected_log_density(q, site.log_posterior)
            total = scale_and_mask(expected, weight) - prior
        by_coordinate = coordinate_divergence(q, site.prior) if coordinates else None
        distortions.append(-likelihood)
        rates.append([SiteRate(LATENT, total, by_coordinate)])
    latents = tuple(Latents((site,)) for site, *_ in whole) if penalties else ()
    return Terms(*averaged(distortions, rates), latents, count * len(x))


def _drawn(
    model: Any, q: Any, x: Tensor, z: Tensor, weight: Any = 1.0
) -> tuple[LatentSite, Tensor, Tensor]:
    """Return a sample z of each datum, and the weighted terms of likelihood and prior."""
    p = _distribution(model, "prior", LATENT, size=len(x))
    likelihood = _distribution(model, "decoder", OBSERVED, z, size=len(x))
    if x.dim() == likelihood.event_dim:
        refuse_single_datum({OBSERVED: tuple(x.shape)}, plate=PLATE, size=len(x))
    # In the order of the traces, since gradients are summed in it.
    log_prior = p.log_prob(z)
    prior_term = scale_and_mask(log_prior, weight)
    likelihood_term = scale_and_mask(likelihood.log_prob(x), weight)
    log_posterior = q.log_prob(z)
    for term in (prior_term, likelihood_term, log_posterior):
        if term.shape != x.shape[:1]:
            raise ValueError(
                f"a batch of {len(x)} items of this model must have the shape "
                f"{(len(x), *likelihood.event_shape)}, got {tuple(x.shape)}, with "
                f"log-densities of shape {tuple(term.shape)}"
            )
    site = LatentSite(LATENT, q, p, z, log_posterior, log_prior)
    return site, likelihood_term, prior_term


def _distribution(program: Any, part: str, site: str, *args: Any, size: int) -> Any:
    """Return a part's distribution at a site, broadcast as inside the plate."""
    with _Watch(program), program.opened():
        distribution = getattr(program, part)(*args)
    frame = CondIndepStackFrame(PLATE, -1, size, 0)
    message: dict[str, Any] = {
        "type": "sample",
        "name": site,
        "fn": distribution,
        "done": False,
        "cond_indep_stack": (frame,),
    }
    BroadcastMessenger._pyro_sample(message)  # reads only these fields
    return message["fn"]


def _handled() -> bool:
    """Return True if an active handler needs more than parameters, which parts register anyway."""
    return not all(
        isinstance(handler, TraceMessenger) and handler.param_only
        for handler in runtime._PYRO_STACK
    )


class _NotPlainError(Exception):
    """A part of a model or a guide is a Pyro program itself."""


class _Watch(Messenger):
    """Give up if a part samples by itself, such as a network with random weights."""

    def __init__(self, program: Any) -> None:
        super().__init__()
        self.program = program

    def _pyro_sample(self, msg: Any) -> None:
        _TRACED.add(self.program)
        raise _NotPlainError
