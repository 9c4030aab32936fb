"""What penalties need to know of q(z | x) beyond samples: its coordinates and its moments."""

from typing import Any

import torch
from pyro.distributions import Delta, MixtureOfDiagNormals
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from pyro_dpvae.distributions import DiagonalNormalMixture, soft_value
from pyro_dpvae.objectives._gathering import Gathered

__all__ = [
    "DRAWS",
    "coordinate_log_prob",
    "diagonal_normal",
    "is_delta",
    "normal_marginals",
    "posterior_covariance",
    "posterior_mean",
]

DRAWS = 64
"""How many draws of a q(z | x) without known marginals, such as a flow, give its moments."""


def coordinate_log_prob(distribution: Distribution, value: Tensor) -> Tensor:
    """Return the log-density of each coordinate by itself.

    Exact for one coordinate, for independent ones, for Gaussians of any covariance, and for
    mixtures of these. Those of any other distribution over vectors, such as a flow, are taken as
    normal, with mean and variance of ``DRAWS`` draws that have gradients.

    Args:
        distribution: of any batch shape and event shape.
        value: points, of shape (*batch, *event), broadcast against the batch shape.

    Returns:
        log q_d(z_d), of shape (*batch, L), with L the size of an event.

    Raises:
        TypeError: for other distributions, whose marginals have no closed form and whose draws no
            gradients, and for points of mass.
    """
    given, distribution = distribution, _plain(distribution)
    if isinstance(distribution, MixtureSameFamily):
        components = distribution.component_distribution
        event = len(components.event_shape)
        of_component = coordinate_log_prob(components, value.unsqueeze(-1 - event))
        log_weights = distribution.mixture_distribution.logits.unsqueeze(-1)
        return torch.logsumexp(log_weights + of_component, -2)
    event = len(distribution.event_shape)
    marginals = _univariate(distribution)
    if marginals is not None:
        density = marginals.log_prob(value)
        return density.flatten(-event) if event else density.unsqueeze(-1)
    if distribution.event_shape.numel() == 1 and not is_delta(distribution):
        return distribution.log_prob(value).unsqueeze(-1)
    moments = _moments_of_draws(given)
    if moments is None:
        raise TypeError(
            "the total correlation and the mutual posterior divergence need a q(z | x) whose "
            "coordinates have known densities, or whose draws have gradients to take moments of, "
            f"got {type(distribution).__name__}; use AdversarialTotalCorrelation or MMD, which "
            "need samples alone"
        )
    return Normal(*moments, validate_args=False).log_prob(soft_value(value))


def normal_marginals(distribution: Distribution) -> tuple[Tensor, Tensor] | None:
    """Return mean and standard deviation of each coordinate, (*batch, L), if these are normal.

    Those of a flow are taken as normal: see :func:`coordinate_log_prob`.
    """
    batch, event = distribution.batch_shape, len(distribution.event_shape)
    given, distribution = distribution, _plain(distribution)
    marginals = _univariate(distribution)
    if isinstance(marginals, Normal):
        shape = (*batch, *distribution.event_shape)
        loc, scale = marginals.loc.expand(shape), marginals.scale.expand(shape)
        if event:
            return loc.flatten(-event), scale.flatten(-event)
        return loc.unsqueeze(-1), scale.unsqueeze(-1)
    known = marginals is not None or isinstance(distribution, MixtureSameFamily)
    moments = None if known else _moments_of_draws(given)
    if moments is None or distribution.event_shape.numel() == 1:
        return None
    loc, scale = (moment.expand(*batch, -1) for moment in moments)
    return loc, scale


def diagonal_normal(distribution: Distribution) -> tuple[Tensor, Tensor] | None:
    """Return mean and standard deviation, (*batch, L), of independent normals; None of others."""
    plain = _plain(distribution)
    coordinates = plain.base_dist if isinstance(plain, Independent) else plain
    return normal_marginals(distribution) if isinstance(coordinates, Normal) else None


def posterior_mean(distribution: Any) -> Tensor | None:
    """Return the mean of q(z | x), (*batch, *event), or that of draws where it is not known.

    Returns:
        None if it is not known and draws have no gradients.
    """
    shape = distribution.batch_shape + distribution.event_shape
    given, distribution = distribution, _plain(distribution)
    try:
        return distribution.mean.expand(shape)
    except NotImplementedError:
        if not given.has_rsample:
            return None
        return given(torch.Size([DRAWS])).mean(0).expand(shape)


def posterior_covariance(distribution: Distribution) -> Tensor | None:
    """Return the covariance matrix of q(z | x), (*batch, L, L), where it has a closed form."""
    distribution = _plain(distribution)
    if isinstance(
        distribution, MultivariateNormal | LowRankMultivariateNormal | DiagonalNormalMixture
    ):
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


def is_delta(distribution: Any) -> bool:
    """Return whether draws are a point of mass, or what a map makes of one."""
    while not isinstance(distribution, Delta) and hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return isinstance(distribution, Delta)


def _plain(distribution: Distribution) -> Distribution:
    """Return the distribution that is expanded or gathered, and Pyro's mixture as ours."""
    while isinstance(distribution, ExpandedDistribution | Gathered):
        whole = isinstance(distribution, Gathered)
        distribution = distribution.whole if whole else distribution.base_dist
    if isinstance(distribution, MixtureOfDiagNormals):
        return DiagonalNormalMixture(
            distribution.component_logits,
            distribution.locs,
            distribution.coord_scale,
            validate_args=False,
        )
    return distribution


def _univariate(distribution: Distribution) -> Distribution | None:
    """Return the distributions of the coordinates, of batch shape (*batch, *event), or None."""
    if isinstance(distribution, Independent) and not distribution.base_dist.event_shape:
        return distribution.base_dist
    if isinstance(distribution, MultivariateNormal | LowRankMultivariateNormal):
        return Normal(distribution.loc, distribution.variance.sqrt(), validate_args=False)
    if isinstance(distribution, DiagonalNormalMixture):
        loc, scale = distribution.loc.mT, distribution.scale.mT
        weights = Categorical(
            logits=distribution.logits.unsqueeze(-2).expand(loc.shape), validate_args=False
        )
        components = Normal(loc, scale, validate_args=False)
        return MixtureSameFamily(weights, components, validate_args=False)
    if not distribution.event_shape and not isinstance(distribution, MixtureSameFamily):
        return distribution
    return None


def _moments_of_draws(distribution: Any) -> tuple[Tensor, Tensor] | None:
    """Return mean and standard deviation of draws, (*batch, L), where draws have gradients."""
    if (
        len(distribution.event_shape) != 1
        or not distribution.has_rsample
        or is_delta(_plain(distribution))
    ):
        return None
    draws = soft_value(distribution(torch.Size([DRAWS])))  # as pyro.sample draws
    return draws.mean(0), draws.std(0)
