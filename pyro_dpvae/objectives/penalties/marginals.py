"""What penalties need to know of q(z | x) beyond samples: its coordinates and its moments."""

import torch
from pyro.distributions import MixtureOfDiagNormals
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

__all__ = ["coordinate_log_prob", "normal_marginals", "posterior_covariance"]


def coordinate_log_prob(distribution: Distribution, value: Tensor) -> Tensor:
    """Return the log-density of each coordinate by itself.

    Known for independent coordinates, for Gaussians of any covariance, and for mixtures of these.

    Args:
        distribution: of any batch shape and event shape.
        value: points, of shape (*batch, *event), broadcast against the batch shape.

    Returns:
        log q_d(z_d), of shape (*batch, L), with L the size of an event.

    Raises:
        TypeError: for other distributions, whose marginals have no closed form.
    """
    if isinstance(distribution, ExpandedDistribution):
        return coordinate_log_prob(distribution.base_dist, value)
    if isinstance(distribution, MixtureSameFamily):
        components = distribution.component_distribution
        event = len(components.event_shape)
        of_component = coordinate_log_prob(components, value.unsqueeze(-1 - event))
        log_weights = distribution.mixture_distribution.logits.unsqueeze(-1)
        return torch.logsumexp(log_weights + of_component, -2)
    if isinstance(distribution, MixtureOfDiagNormals):
        components = Normal(distribution.locs, distribution.coord_scale, validate_args=False)
        log_weights = distribution.component_logits.log_softmax(-1).unsqueeze(-1)
        return torch.logsumexp(log_weights + components.log_prob(value.unsqueeze(-2)), -2)
    marginals = _univariate(distribution)
    if marginals is None:
        raise TypeError(
            "the total correlation and the mutual posterior divergence need a q(z | x) whose "
            f"coordinates have known densities, got {type(distribution).__name__}; use "
            "AdversarialTotalCorrelation or MMD, which need samples alone"
        )
    density = marginals.log_prob(value)
    event = len(distribution.event_shape)
    return density.flatten(-event) if event else density.unsqueeze(-1)


def normal_marginals(distribution: Distribution) -> tuple[Tensor, Tensor] | None:
    """Return mean and standard deviation of each coordinate, (*batch, L), if q is Gaussian."""
    marginals = _univariate(distribution)
    if not isinstance(marginals, Normal):
        return None
    event = len(distribution.event_shape)
    shape = (*distribution.batch_shape, *distribution.event_shape)
    loc, scale = marginals.loc.expand(shape), marginals.scale.expand(shape)
    if event:
        return loc.flatten(-event), scale.flatten(-event)
    return loc.unsqueeze(-1), scale.unsqueeze(-1)


def posterior_covariance(distribution: Distribution) -> Tensor | None:
    """Return the covariance matrix of q(z | x), (*batch, L, L), where it has a closed form."""
    if isinstance(distribution, ExpandedDistribution):
        return posterior_covariance(distribution.base_dist)
    if isinstance(distribution, MultivariateNormal | LowRankMultivariateNormal):
        return distribution.covariance_matrix
    marginals = _univariate(distribution)
    if marginals is None:
        return None
    event = len(distribution.event_shape)
    try:
        variance = marginals.variance
    except NotImplementedError:
        return None
    return torch.diag_embed(variance.flatten(-event) if event else variance.unsqueeze(-1))


def _univariate(distribution: Distribution) -> Distribution | None:
    """Return the distributions of the coordinates, of batch shape (*batch, *event), or None."""
    if isinstance(distribution, ExpandedDistribution):
        return _univariate(distribution.base_dist)
    if isinstance(distribution, Independent) and not distribution.base_dist.event_shape:
        return distribution.base_dist
    if isinstance(distribution, MultivariateNormal | LowRankMultivariateNormal):
        return Normal(distribution.loc, distribution.variance.sqrt(), validate_args=False)
    if not distribution.event_shape and not isinstance(distribution, MixtureSameFamily):
        return distribution
    return None
