"""The divergence of two distributions, in more closed forms than torch knows."""

import math

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

__all__ = ["closed_divergence"]


def closed_divergence(q: Distribution, p: Distribution) -> Tensor:
    """Return KL(q || p) in closed form, of the batch shape of both.

    Beyond what torch has: for q = N(mu, Sigma) and p = N(m, diag s^2),

        KL = 1/2 sum_d [(Sigma_dd + (mu_d - m_d)^2) / s_d^2 + log(2 pi s_d^2)] - H(q),

    and expanded distributions.

    Raises:
        NotImplementedError: if no closed form is known.

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


def _unexpanded(distribution: Distribution) -> Distribution:
    while isinstance(distribution, ExpandedDistribution):
        distribution = distribution.base_dist
    return distribution
