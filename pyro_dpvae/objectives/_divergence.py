"""The divergence of q(z | x) from p(z), in closed form if known, otherwise at a sample."""

import math
from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

from pyro_dpvae.objectives.penalties.marginals import is_delta

__all__ = [
    "closed_divergence",
    "coordinate_divergence",
    "expected_log_density",
    "known_divergence",
]


def closed_divergence(q: Distribution, p: Distribution) -> Tensor:
    """Return KL(q || p) in closed form, with the batch shape of both.

    Without closed form it raises a NotImplementedError. Unlike torch it supports expanded
    distributions, and q = N(mu, Sigma) with p = N(m, diag s^2):

        KL = 1/2 sum_d [(Sigma_dd + (mu_d - m_d)^2) / s_d^2 + log(2 pi s_d^2)] - H(q).

    Example:
        >>> q = MultivariateNormal(torch.ones(2), torch.eye(2))
        >>> closed_divergence(q, Independent(Normal(torch.zeros(2), torch.ones(2)), 1))
        tensor(1.)
    """
    batch = torch.broadcast_shapes(q.batch_shape, p.batch_shape)
    q, p = _unexpanded(q), _unexpanded(p)
    if (
        isinstance(q, MultivariateNormal | LowRankMultivariateNormal)
        and isinstance(p, Independent)
        and isinstance(p.base_dist, Normal)
        and p.reinterpreted_batch_ndims == 1
    ):
        loc, variance = p.base_dist.loc, p.base_dist.variance
        scaled = (q.variance + (q.mean - loc).square()) / variance
        crossed = 0.5 * (scaled + variance.log() + math.log(2 * math.pi)).sum(-1)
        return (crossed - q.entropy()).expand(batch)
    return kl_divergence(q, p).expand(batch)


def known_divergence(q: Any, p: Any) -> Tensor | None:
    """Return KL(q || p) with the batch shape of both; None if no closed form is known."""
    return _if_known(q, lambda: closed_divergence(q, p))


def coordinate_divergence(q: Any, p: Any) -> Tensor | None:
    """Return KL of each coordinate, (*batch, L), if both sides factorise in closed form."""
    if not (
        isinstance(q, Independent)
        and isinstance(p, Independent)
        and not q.base_dist.event_shape
        and not p.base_dist.event_shape
    ):
        return None
    divergence = _if_known(q, lambda: kl_divergence(q.base_dist, p.base_dist))
    return None if divergence is None else divergence.flatten(-len(q.event_shape))


def expected_log_density(q: Any, at_sample: Tensor) -> Tensor:
    """Return E_q[log q]: minus the entropy of q if it is known, otherwise log q at a sample."""
    entropy = _if_known(q, q.entropy)
    return at_sample if entropy is None else -entropy


def _if_known(q: Any, quantity: Callable[[], Tensor]) -> Tensor | None:
    """Return a quantity of q in closed form; None for a Delta, as in autoguides."""
    try:
        return None if is_delta(q) else quantity()
    except NotImplementedError:
        return None


def _unexpanded(distribution: Distribution) -> Distribution:
    while isinstance(distribution, ExpandedDistribution):
        distribution = distribution.base_dist
    return distribution
