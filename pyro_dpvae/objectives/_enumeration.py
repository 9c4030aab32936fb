"""Discrete latents of a guide, summed out exactly under their probabilities."""

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
    """Return the dimension that enumerates a site, or None for a site with one sample."""
    return site["infer"].get("_enumerate_dim")


@final
class Enumerating(EnumMessenger):
    """Pyro's enumeration, with an error for batch norm after enumerated sites.

    Attributes:
        shapes: for each enumerated site, the number of values and of data.
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
        """Raise if a ``BatchNorm1d`` inside sees features for every enumerated value.

        It would take features of shape (values, batch, width) for signals, if batch = width.
        """

        def check(module: nn.Module, args: tuple[Any, ...]) -> None:
            if not (self.shapes and isinstance(module, nn.BatchNorm1d) and args):
                return
            shape = tuple(args[0].shape)
            if len(shape) > 3 or shape[:2] in self.shapes:
                raise ValueError(
                    "batch norm cannot follow an enumerated discrete site, since each value has a "
                    f"batch of its own; got a BatchNorm1d of features {shape} after sites of "
                    f"(values, data) {sorted(self.shapes)}; use LayerNorm there, or sample the "
                    "site instead of enumerating it"
                )

        handle = register_module_forward_pre_hook(check)
        try:
            yield
        finally:
            handle.remove()


def enumerated_trace(
    guide: Any, args: Any, kwargs: Any, nesting: int | float
) -> tuple[Trace, int | float, Enumerating]:
    """Return the trace of a guide, with its marked discrete sites enumerated.

    Returns:
        The trace; the nesting depth of plates (1 if sites are enumerated and it is unknown); and
        the messenger that enumerated them.
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
                "enumerated sites must take every value once, got num_samples="
                f"{site['infer']['num_samples']} at {site['name']!r}; leave num_samples out"
            )
    frames = [frame for site in sites for frame in site["cond_indep_stack"] if frame.vectorized]
    deepest = max((-frame.dim for frame in frames), default=0)
    if deepest > depth:
        raise ValueError(
            "plates nest too deeply for enumerated sites, which use dimensions to the left of "
            f"all plates: at most {depth} were expected, got {deepest}; set "
            f"max_plate_nesting={deepest} of the objective"
        )
    return trace, depth, enumerating


@final
class Enumeration:
    """Expectations over the enumerated sites of a guide's trace, each in its own dimension.

    A term that depends on the sites y_1, ..., y_S, directly or through their probabilities, is
    averaged only over these,

        E_q[f(y)] = sum_y f(y) prod_s q(y_s | parents).
    """

    def __init__(self, guide_trace: Trace) -> None:
        self.names: dict[int, str] = {}
        self._probs: dict[int, Tensor] = {}
        for name, site in guide_trace.nodes.items():
            dim = enumerated_dim(site) if site["type"] == "sample" else None
            if dim is not None:
                self.names[dim] = name
                self._probs[dim] = site["unscaled_log_prob"].exp()
        self.first = max(self._probs, default=0)  # dimensions to its left are enumerated too

    def expected(self, term: Tensor) -> Tensor:
        """Return E_q of a term, without the dimensions of enumerated sites."""
        if not self.names or term.dim() < -self.first:
            return term
        factors = list(self._closure(term.shape, self._probs.__getitem__).values())
        if factors:
            weight = math.prod(factors[1:], start=factors[0])
            # A value with probability 0 must not count, whatever the term is there.
            term = weight * term.masked_fill(weight == 0, 0.0)
        return term.sum(tuple(range(-term.dim(), self.first + 1)))

    def marginal(
        self, site: Site, log_prob: Callable[[str], Tensor]
    ) -> "tuple[Marginal | None, set[str]]":
        """Return a site's distribution under the model with enumerated sites summed out.

        ``log_prob`` returns the model's log-density of an enumerated site, by its name.

        Returns:
            The marginal, or None if the site depends on no enumerated one; and the names of the
            sites that it depends on.
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
        """Return the factors of all sites that a term depends on, directly or not."""
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
    """p(z) = sum_k p(k) p(z | k), with the values k in the first dimensions of a batch.

    If components are diagonal normals, samples with gradients are those of
    ``DiagonalNormalMixture``, also with gradients to the weights. Otherwise they are samples of
    one chosen component, with gradients to this component and none to the weights.

    Args:
        log_weights: log p(k), which broadcasts to the batch shape of the components.
        components: p(z | k), of batch shape (*k, *batch).
        enumerated: number of dimensions of *k.
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
        """Return log p(z), in nats, for z of shape (..., *batch, *event)."""
        own = len(self.batch_shape) + len(self.event_shape)
        outer, inner = value.shape[: value.dim() - own], value.shape[value.dim() - own :]
        value = map_draws(lambda z: z.reshape(*outer, *(1,) * self.enumerated, *inner), value)
        terms = self.log_weights + self.components.log_prob(value)
        start = len(outer)
        return terms.flatten(start, start + self.enumerated - 1).logsumexp(start)

    @property
    def has_rsample(self) -> bool:
        """True if samples of the components have gradients."""
        return self.components.has_rsample

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples with gradients, of shape (*sample_shape, *batch, *event)."""
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
        """Return samples without gradients, of shape (*sample_shape, *batch, *event)."""
        with torch.no_grad():
            return self._chosen(self.components(torch.Size(sample_shape)))

    def _chosen(self, draws: Tensor) -> Tensor:
        """Choose by weight among the components' samples, (*sample, *k, *batch, *event)."""
        outer = draws.dim() - len(self.components.batch_shape) - len(self.event_shape)
        draws = draws.flatten(outer, outer + self.enumerated - 1)
        with torch.no_grad():
            clocks = torch.empty(draws.shape[: draws.dim() - len(self.event_shape)])
            clocks = clocks.to(self.log_weights).exponential_()
            weights = self.log_weights.flatten(0, self.enumerated - 1)
            # The first of exponential clocks with rates p(k): a choice without synchronisation.
            chosen = (weights - clocks.log()).argmax(outer, keepdim=True)
        chosen = chosen.reshape(*chosen.shape, *(1,) * len(self.event_shape))
        shape = [*draws.shape[:outer], 1, *draws.shape[outer + 1 :]]
        return draws.gather(outer, chosen.expand(shape)).squeeze(outer)
