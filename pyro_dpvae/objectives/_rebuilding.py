"""Rebuild distributions with other parameters, such as those of all ranks' data."""

from collections.abc import Callable, Mapping
from functools import partial, singledispatch
from typing import Any

from pyro.distributions import Delta, InverseGamma, MixtureOfDiagNormals
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import distributions as torch_dist

from pyro_dpvae.distributions import DiagonalNormalMixture
from pyro_dpvae.objectives._enumeration import Marginal
from pyro_dpvae.objectives._gathering import Gathered, Over
from pyro_dpvae.priors import FlowDistribution, FlowTransform, Joined, Resampled

__all__ = ["gathered", "rebuild"]


def gathered(distribution: Any, over: Over) -> Gathered:
    """Return the distributions of all ranks' data; for an unknown class, only their samples."""
    try:
        rebuild(distribution, lambda tensor, _event: tensor)
    except TypeError as error:
        return Gathered(distribution, error)
    return Gathered(distribution, rebuild(distribution, over))


@singledispatch
def rebuild(distribution: Any, over: Over) -> Any:
    """Return the distribution with each tensor replaced by ``over(tensor, event)``.

    An objective ``across_ranks`` uses it to turn one rank's q(z | x) and p(z) into those of all
    ranks' data: ``over(tensor, event)`` maps a parameter of shape (*particles, batch, *event),
    with ``event`` event dimensions, to that of the whole batch. It supports the distributions of
    this library and most of torch's and Pyro's over numbers and vectors; for others, register a
    function. Parts that do not depend on data, such as the map of a flow, are unchanged.

    Args:
        distribution: a distribution of batch shape (*particles, batch).
        over: replaces each tensor.

    Raises:
        TypeError: if the class is not registered.

    Example:
        >>> import pyro.distributions as dist
        >>> import torch
        >>> class Shifted(dist.TorchDistribution):
        ...     def __init__(self, shift):
        ...         self.shift = shift
        ...         super().__init__(shift.shape, validate_args=False)
        >>> @rebuild.register(Shifted)
        ... def _(distribution, over):
        ...     return Shifted(over(distribution.shift, 0))
        >>> rebuild(Shifted(torch.zeros(2)), lambda tensor, event: tensor.repeat(3)).batch_shape
        torch.Size([6])
    """
    kind = type(distribution).__name__
    raise TypeError(
        f"{kind} cannot be rebuilt across ranks: a density over all data needs the parameters of "
        f"each datum; register it with pyro_dpvae.objectives.rebuild.register({kind}), or use a "
        "penalty that only needs samples, such as MMD"
    )


def _by_parameters(
    distribution: Any, over: Over, *, events: Mapping[str, int] | None = None
) -> Any:
    dims = events or {
        name: constraint.event_dim for name, constraint in distribution.arg_constraints.items()
    }
    parameters = {name: over(getattr(distribution, name), dim) for name, dim in dims.items()}
    return type(distribution)(**parameters, validate_args=False)


def _inside(over: Over, dims: int) -> Over:
    """Return an ``Over`` for parts whose batch has ``dims`` more dimensions on the right."""
    return lambda tensor, event: over(tensor, event + dims)


def _flow(distribution: FlowDistribution, over: Over) -> FlowDistribution:
    transform = distribution.transforms[0]
    context = None if transform.context is None else over(transform.context, 1)
    base = rebuild(distribution.base_dist, over)
    return FlowDistribution(base, FlowTransform(transform.flow, context=context))


def _expanded(distribution: ExpandedDistribution, over: Over) -> Any:
    base = rebuild(distribution.base_dist, over)
    return base.expand(distribution.batch_shape[:-1] + base.batch_shape[-1:])


_BY_PARAMETERS = (
    torch_dist.Beta,
    torch_dist.Cauchy,
    torch_dist.Dirichlet,
    torch_dist.Exponential,
    torch_dist.Gamma,
    torch_dist.Gumbel,
    torch_dist.HalfCauchy,
    torch_dist.HalfNormal,
    InverseGamma,
    torch_dist.Kumaraswamy,
    torch_dist.Laplace,
    torch_dist.LogNormal,
    torch_dist.LowRankMultivariateNormal,
    torch_dist.Normal,
    torch_dist.Pareto,
    torch_dist.StudentT,
    torch_dist.Uniform,
    torch_dist.VonMises,
    torch_dist.Weibull,
)

_RULES: dict[type, Callable[..., Any]] = {
    **dict.fromkeys(_BY_PARAMETERS, _by_parameters),
    # The event dimensions of the parameters to use, where there are several parametrisations.
    torch_dist.Categorical: partial(_by_parameters, events={"logits": 1}),
    DiagonalNormalMixture: partial(_by_parameters, events={"logits": 1, "loc": 2, "scale": 2}),
    torch_dist.MultivariateNormal: partial(_by_parameters, events={"loc": 1, "scale_tril": 2}),
    torch_dist.Independent: lambda d, over: type(d)(
        rebuild(d.base_dist, _inside(over, d.reinterpreted_batch_ndims)),
        d.reinterpreted_batch_ndims,
        validate_args=False,
    ),
    torch_dist.MixtureSameFamily: lambda d, over: type(d)(
        rebuild(d.mixture_distribution, over),
        rebuild(d.component_distribution, _inside(over, 1)),
        validate_args=False,
    ),
    ExpandedDistribution: _expanded,
    MixtureOfDiagNormals: lambda d, over: MixtureOfDiagNormals(
        over(d.locs, 2), over(d.coord_scale, 2), over(d.component_logits, 1)
    ),
    Delta: lambda d, over: Delta(
        over(d.v, d.event_dim), over(d.log_density, 0), event_dim=d.event_dim
    ),
    FlowDistribution: _flow,
    Joined: lambda d, over: Joined([rebuild(part, over) for part in d.parts]),
    Resampled: lambda d, over: Resampled(
        rebuild(d.proposal, over),
        log_acceptance=d.log_acceptance,
        share=over(d.share, 0),  # each rank has estimated its own
        truncation=d.truncation,
    ),
    Marginal: lambda d, over: Marginal(
        over(d.log_weights, 0), rebuild(d.components, over), enumerated=d.enumerated
    ),
}

for _kind, _rule in _RULES.items():
    rebuild.register(_kind, _rule)
