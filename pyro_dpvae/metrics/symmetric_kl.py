"""How far the prior lies from the aggregate posterior: their symmetric KL divergence."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_dpvae._checks import check_choice, check_repeated
from pyro_dpvae.metrics.estimate import Estimate
from pyro_dpvae.mixture import AggregatePosterior
from pyro_dpvae.nn.modes import in_evaluation
from pyro_dpvae.priors import AbstractPrior

__all__ = ["symmetric_kl"]

_ESTIMATORS = ("exact", "nearest")


@in_evaluation()
def symmetric_kl(
    prior: AbstractPrior | Distribution,
    aggregate: AggregatePosterior | Distribution,
    *,
    num_samples: int = 5000,
    estimator: str = "exact",
) -> Estimate:
    """Return KL(p || q) + KL(q || p) between the prior p(z) and the aggregate posterior q(z).

    The expectations are averages over ``num_samples`` draws from each side. The logarithms of the
    densities' ratio are

    - ``exact``: those of the densities themselves, q(z) over the whole data set;
    - ``nearest``: estimated from distances to nearest neighbours,
      d log(s_i / r_i) + log(m / (n - 1)) with r_i within the own sample and s_i to the other. It
      needs no density and is biased at these sample sizes; it is the dpVAE authors' estimator,
      here in representation space for every prior. Its terms depend on each other, and its
      standard error is not known (NaN).

    Args:
        prior: p(z), a prior or a distribution.
        aggregate: q(z), or another distribution.
        num_samples: the draws from each side, at least 2.
        estimator: ``exact`` or ``nearest``.

    Returns:
        The divergence in nats, with the standard error of the two averages.

    Raises:
        ValueError: if ``num_samples`` is below 2, or for an unknown estimator.

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs, section 5.1. Perez-Cruz (2008), Kullback-Leibler
        divergence estimation of continuous distributions, equation 14.

    Example:
        >>> from pyro_dpvae.priors import StandardNormal
        >>> q = AggregatePosterior(torch.tensor([[1.0, 0.0]]), torch.ones(1, 2))
        >>> estimate = symmetric_kl(StandardNormal(2), q)  # exactly 1
        >>> abs(estimate.value - 1) < 4 * estimate.standard_error
        True
    """
    check_repeated("num_samples", num_samples)
    check_choice("estimator", estimator, _ESTIMATORS)
    with torch.no_grad():
        p = prior if isinstance(prior, Distribution) else prior()
        of_p, of_q = p.sample((num_samples,)), aggregate.sample((num_samples,))
        if estimator == "nearest":
            forward, backward = _nearest_ratios(of_p, of_q), _nearest_ratios(of_q, of_p)
        else:
            forward = p.log_prob(of_p).double() - aggregate.log_prob(of_p.double())
            backward = aggregate.log_prob(of_q.double()) - p.log_prob(of_q)
    components = (
        {"components": len(aggregate.loc)} if isinstance(aggregate, AggregatePosterior) else {}
    )
    value = forward.mean() + backward.mean()
    error = ((forward.var() + backward.var()) / num_samples).sqrt()
    return Estimate(
        float(value),
        math.nan if estimator == "nearest" else float(error),
        {"samples": num_samples, **components, "estimator": estimator},
    )


def _nearest_ratios(own: Tensor, other: Tensor) -> Tensor:
    """Return the estimate of log own(z) - log other(z) at each z of the own sample."""
    from sklearn.neighbors import NearestNeighbors

    points, others = own.double().cpu().numpy(), other.double().cpu().numpy()
    within = NearestNeighbors(n_neighbors=1).fit(points).kneighbors()[0][:, 0]
    between = NearestNeighbors(n_neighbors=1).fit(others).kneighbors(points)[0][:, 0]
    ratio = torch.from_numpy(between).log() - torch.from_numpy(within).log()
    return own.shape[1] * ratio + math.log(len(other) / (len(own) - 1))
