"""Marginals and moments of q(z | x), for penalties."""

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
    "flatten_event",
    "is_delta",
    "normal_marginals",
    "posterior_covariance",
    "posterior_mean",
]

DRAWS = 64
"""Number of samples that estimate the moments of a q(z | x) such as a flow."""


def coordinate_log_prob(distribution: Distribution, value: Tensor) -> Tensor:
    """Return the log-density of each coordinate, log q_d(z_d), of shape (*batch, L).

    It is exact for one coordinate, independent coordinates, Gaussians, and mixtures of these.
    Other distributions over vectors, such as flows, are approximated by independent normals with
    mean and variance of ``DRAWS`` samples, through which gradients flow.

    Args:
        distribution: q(z | x), of any batch shape and event shape.
        value: points, of shape (*batch, *event), broadcast against the batch shape.

    Raises:
        TypeError: for a point mass, and for an unknown density whose samples have no gradients.
    """
    given, distribution = distribution, _plain(distribution)
    if isinstance(distribution, MixtureSameFamily):
        components = distribution.component_distribution
        event = len(components.event_shape)
        of_component = coordinate_log_prob(components, value.unsqueeze(-1 - event))
        log_weights = distribution.mixture_distribution.logits.unsqueeze(-1)
        return torch.logsumexp(log_weights + of_component, -2)
    marginals = _univariate(distribution)
    if marginals is not None:
        return flatten_event(marginals.log_prob(value), distribution)
    if distribution.event_shape.numel() == 1 and not is_delta(distribution):
        return distribution.log_prob(value).unsqueeze(-1)
    moments = _moments_of_draws(given)
    if moments is None:
        raise TypeError(
            "q(z | x) must have coordinates with known densities, or samples with gradients, for "
            f"this penalty; got {type(distribution).__name__}; use AdversarialTotalCorrelation or "
            "MMD, which only need samples"
        )
    return Normal(*moments, validate_args=False).log_prob(soft_value(value))


def normal_marginals(distribution: Distribution) -> tuple[Tensor, Tensor] | None:
    """Return mean and standard deviation of each coordinate, (*batch, L), if these are normal.

    For a flow they are approximate, as in :func:`coordinate_log_prob`.
    """
    batch = distribution.batch_shape
    given, distribution = distribution, _plain(distribution)
    marginals = _univariate(distribution)
    if isinstance(marginals, Normal):
        shape = (*batch, *distribution.event_shape)
        loc, scale = marginals.loc.expand(shape), marginals.scale.expand(shape)
        return flatten_event(loc, distribution), flatten_event(scale, distribution)
    known = marginals is not None or isinstance(distribution, MixtureSameFamily)
    moments = None if known else _moments_of_draws(given)
    if moments is None or distribution.event_shape.numel() == 1:
        return None
    return moments[0].expand(*batch, -1), moments[1].expand(*batch, -1)


def diagonal_normal(distribution: Distribution) -> tuple[Tensor, Tensor] | None:
    """Return mean and standard deviation, (*batch, L), of independent normals, else None."""
    plain = _plain(distribution)
    coordinates = plain.base_dist if isinstance(plain, Independent) else plain
    return normal_marginals(distribution) if isinstance(coordinates, Normal) else None


def posterior_mean(distribution: Any) -> Tensor | None:
    """Return the mean of q(z | x), (*batch, *event), if necessary by ``DRAWS`` samples.

    Returns:
        None if it is unknown and samples have no gradients.
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
    """Return the covariance of q(z | x), (*batch, L, L), or None without closed form."""
    distribution = _plain(distribution)
    if isinstance(
        distribution, MultivariateNormal | LowRankMultivariateNormal | DiagonalNormalMixture
    ):
        return distribution.covariance_matrix
    marginals = _univariate(distribution)
    if marginals is None:
        return None
    try:
        return torch.diag_embed(flatten_event(marginals.variance, distribution))
    except NotImplementedError:
        return None


def flatten_event(value: Tensor, distribution: Distribution) -> Tensor:
    """Return a value with the event of its distribution as one vector, (*batch, L)."""
    dims = len(distribution.event_shape)
    return value.flatten(-dims) if dims else value.unsqueeze(-1)


def is_delta(distribution: Any) -> bool:
    """Return True for a point mass, also after a transform."""
    while not isinstance(distribution, Delta) and hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return isinstance(distribution, Delta)


def _plain(distribution: Distribution) -> Distribution:
    """Return a distribution without expansion or gathering, and Pyro's mixture as ours."""
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
    """Return the coordinates' distributions, of batch shape (*batch, *event), or None."""
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
    """Return mean and standard deviation of samples with gradients, (*batch, L), or None."""
    if (
        len(distribution.event_shape) != 1
        or not distribution.has_rsample
        or is_delta(_plain(distribution))
    ):
        return None
    draws = soft_value(distribution(torch.Size([DRAWS])))
    return draws.mean(0), draws.std(0)
