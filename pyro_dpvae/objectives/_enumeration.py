"""Discrete latents of a guide, summed out exactly: expectations under their probabilities."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, final

import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine import Trace
from pyro.poutine.enum_messenger import EnumMessenger
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.modules.module import register_module_forward_pre_hook

from pyro_dpvae.distributions import DiagonalNormalMixture, map_draws
from pyro_dpvae.objectives.penalties.marginals import diagonal_normal

__all__ = ["Enumerating", "Enumeration", "Marginal", "enumerated_dim", "enumerated_trace"]

Site = dict[str, Any]


def enumerated_dim(site: Site) -> int | None:
    """Return the dimension that holds the values of a site, or None where it has one draw."""
    dim: int | None = site["infer"].get("_enumerate_dim")
    return dim


@final
class Enumerating(EnumMessenger):
    """Pyro's enumeration, which refuses batch norm behind the values of a site.

    Attributes:
        shapes: of each enumerated site, how many values it has, and for how many data.
    """

    def __init__(self, first_available_dim: int) -> None:
        super().__init__(first_available_dim)
        self.shapes: set[tuple[int, ...]] = set()

    def _pyro_sample(self, msg: Any) -> None:
        super()._pyro_sample(msg)
        if enumerated_dim(msg) is not None:
            for frame in msg["cond_indep_stack"]:
                self.shapes.add((msg["value"].shape[0], frame.size))

    @contextmanager
    def checked_batch_norm(self) -> Iterator[None]:
        """Refuse, while programs run, a ``BatchNorm1d`` of features of every value.

        It takes features of shape (values, batch, width) for those of a signal, and normalises
        over the values where the batch happens to be as large as its width.
        """

        def check(module: nn.Module, args: tuple[Any, ...]) -> None:
            if not (self.shapes and isinstance(module, nn.BatchNorm1d) and args):
                return
            shape = tuple(args[0].shape)
            if len(shape) > 3 or shape[:2] in self.shapes:
                raise ValueError(
                    "batch norm has no statistics of one batch where a discrete site takes all "
                    f"its values, got a BatchNorm1d of features {shape}, one batch for each value "
                    f"of sites of (values, data) {sorted(self.shapes)}; use LayerNorm there, or "
                    "draw the site instead of enumerating it"
                )

        handle = register_module_forward_pre_hook(check)
        try:
            yield
        finally:
            handle.remove()


def enumerated_trace(
    guide: Any, args: Any, kwargs: Any, nesting: int | float
) -> tuple[Trace, int | float, Enumerating]:
    """Return the trace of a guide, with the discrete sites that ask for it enumerated.

    Args:
        guide: q(z | x).
        args: of the guide.
        kwargs: of the guide.
        nesting: how deep plates nest at most; infinite where that is not known.

    Returns:
        The trace; how deep plates nest: where sites are enumerated and it is not known, 1; and
        what has enumerated them.

    Raises:
        ValueError: if a site asks for a number of draws of each value, or lies in more plates.
    """
    depth = 1 if math.isinf(nesting) else int(nesting)
    enumerating = Enumerating(-1 - depth)
    with enumerating.checked_batch_norm():
        trace = poutine.trace(enumerating(guide), graph_type="flat").get_trace(*args, **kwargs)
    sites = [site for site in trace.nodes.values() if site["type"] == "sample"]
    enumerated = [site for site in sites if enumerated_dim(site) is not None]
    if not enumerated:
        return trace, nesting, enumerating
    for site in enumerated:
        if site["infer"].get("num_samples") is not None:
            raise ValueError(
                "enumerated sites take every value once, got num_samples="
                f"{site['infer']['num_samples']} at {site['name']!r}; leave num_samples out"
            )
    frames = [frame for site in sites for frame in site["cond_indep_stack"] if frame.vectorized]
    deepest = max((-frame.dim for frame in frames), default=0)
    if deepest > depth:
        raise ValueError(
            f"values of discrete sites are laid out left of all plates, of which {depth} were "
            f"expected, got {deepest}; give the objective max_plate_nesting={deepest}"
        )
    return trace, depth, enumerating


@final
class Enumeration:
    """Expectations over the sites of a guide that Pyro enumerates, each in a dimension of its own.

    A term that depends on the sites y_1, ..., y_S, itself or through their probabilities, is
    averaged over these alone,

        E_q[f(y)] = sum_y f(y) prod_s q(y_s | parents),

    so that terms of one site among many are sums over the values of one.

    Args:
        guide_trace: of a guide run under ``poutine.enum``, with densities computed.
    """

    def __init__(self, guide_trace: Trace) -> None:
        self.names: dict[int, str] = {}
        log_probs = {}
        for name, site in guide_trace.nodes.items():
            dim = enumerated_dim(site) if site["type"] == "sample" else None
            if dim is not None:
                self.names[dim] = name
                log_probs[dim] = site["unscaled_log_prob"]
        self._probs = {dim: log_prob.exp() for dim, log_prob in log_probs.items()}
        self.first = max(self._probs, default=0)  # those to its left are enumerated too

    def expected(self, term: Tensor) -> Tensor:
        """Return E_q of a term, without the dimensions of enumerated sites."""
        if not self.names or term.dim() < -self.first:
            return term
        factors = list(self._closure(term.shape, self._probs.__getitem__).values())
        if factors:
            weight = math.prod(factors[1:], start=factors[0])
            # A value that is never taken counts nothing, whatever the term is there.
            term = weight * term.masked_fill(weight == 0, 0.0)
        return term.sum(tuple(range(-term.dim(), self.first + 1)))

    def marginal(
        self, site: Site, log_prob: Callable[[str], Tensor]
    ) -> "tuple[Marginal | None, set[str]]":
        """Return a site's distribution under the model with enumerated sites summed out.

        Args:
            site: of the model.
            log_prob: the model's log-density of an enumerated site, by its name.

        Returns:
            The marginal, None where the site depends on no enumerated one; and the names of
            those that it depends on, directly or through others.
        """
        p = site["fn"]
        if not self.names or len(p.batch_shape) < -self.first:
            return None, set()
        terms = self._closure(p.batch_shape, lambda dim: log_prob(self.names[dim]))
        log_weights = sum(terms.values(), start=site["unscaled_log_prob"].new_zeros(()))
        enumerated = len(p.batch_shape) + self.first + 1
        return Marginal(log_weights, p, enumerated=enumerated), {self.names[dim] for dim in terms}

    def parents(self, distribution: TorchDistributionMixin) -> set[str]:
        """Return the enumerated sites that a distribution depends on directly."""
        return {self.names[dim] for dim in self._dims(distribution.batch_shape)}

    def _dims(self, shape: Sequence[int]) -> list[int]:
        return [dim for dim in self.names if len(shape) >= -dim and shape[dim] > 1]

    def _closure(self, shape: Sequence[int], factor: Callable[[int], Tensor]) -> dict[int, Tensor]:
        """Return the factors of all sites that a term depends on, directly or through others."""
        found: dict[int, Tensor] = {}
        pending = self._dims(shape)
        while pending:
            dim = pending.pop()
            if dim not in found:
                found[dim] = factor(dim)
                pending.extend(self._dims(found[dim].shape))
        return found


@final
class Marginal(TorchDistribution):
    """p(z) = sum_k p(k) p(z | k), with the values k along the first dimensions of a batch.

    Where components are diagonal normals, draws with gradients are those of
    ``DiagonalNormalMixture``, with gradients to the weights too. Of others, they are draws of the
    component that was chosen, with gradients to this component and none to the weights.

    Args:
        log_weights: log p(k), which broadcasts to the batch shape of the components.
        components: p(z | k), of batch shape (*k, *batch).
        enumerated: how many dimensions *k has.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(
        self, log_weights: Tensor, components: TorchDistributionMixin, *, enumerated: int
    ) -> None:
        self.log_weights = log_weights.expand(components.batch_shape)
        self.components = components
        self.enumerated = enumerated
        batch = components.batch_shape[enumerated:]
        super().__init__(batch, components.event_shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(z), in nats, of z of shape (..., *batch, *event)."""
        own = len(self.batch_shape) + len(self.event_shape)
        outer, inner = value.shape[: value.dim() - own], value.shape[value.dim() - own :]
        value = map_draws(lambda z: z.reshape(*outer, *(1,) * self.enumerated, *inner), value)
        terms = self.log_weights + self.components.log_prob(value)
        start = len(outer)
        return terms.flatten(start, start + self.enumerated - 1).logsumexp(start)

    @property
    def has_rsample(self) -> bool:
        """Whether draws have gradients: where those of the components have."""
        return self.components.has_rsample

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return draws with gradients, of shape (*sample_shape, *batch, *event)."""
        normal = diagonal_normal(self.components)
        if normal is None:
            return self._chosen(self.components(torch.Size(sample_shape)))
        last = self.enumerated - 1
        loc, scale = (one.flatten(0, last).movedim(0, -2) for one in normal)
        logits = self.log_weights.flatten(0, last).movedim(0, -1)
        mixture = DiagonalNormalMixture(logits, loc, scale, validate_args=False)
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        return mixture.rsample(sample_shape).reshape(shape)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return draws without gradients, of shape (*sample_shape, *batch, *event)."""
        with torch.no_grad():
            return self._chosen(self.components(torch.Size(sample_shape)))

    def _chosen(self, draws: Tensor) -> Tensor:
        """Return one of the components' draws, (*sample, *k, *batch, *event), chosen by weight."""
        outer = draws.dim() - len(self.components.batch_shape) - len(self.event_shape)
        draws = draws.flatten(outer, outer + self.enumerated - 1)
        with torch.no_grad():
            clocks = torch.empty(draws.shape[: draws.dim() - len(self.event_shape)])
            clocks = clocks.to(self.log_weights).exponential_()
            weights = self.log_weights.flatten(0, self.enumerated - 1)
            # The first of exponential clocks of rates p(k): a choice that waits for no device.
            chosen = (weights - clocks.log()).argmax(outer, keepdim=True)
        chosen = chosen.reshape(*chosen.shape, *(1,) * len(self.event_shape))
        shape = [*draws.shape[:outer], 1, *draws.shape[outer + 1 :]]
        return draws.gather(outer, chosen.expand(shape)).squeeze(outer)
