"""The symmetric KL divergence between the prior and the aggregate posterior."""

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


@in_evaluation()
def symmetric_kl(
    prior: AbstractPrior | Distribution,
    aggregate: AggregatePosterior | Distribution,
    *,
    num_samples: int = 5000,
    estimator: str = "exact",
) -> Estimate:
    """Return KL(p || q) + KL(q || p) between prior and aggregate posterior, in nats.

    Each expectation is a mean over ``num_samples`` samples. The log ratio of the densities is

    - ``exact``: computed from the densities, with q(z) over the whole data set;
    - ``nearest``: estimated by d log(s_i / r_i) + log(m / (n - 1)), with the distances r_i and s_i
      to the nearest neighbour in the own and the other sample. It needs no density, but is biased.
      It is the estimator of the dpVAE authors, here in representation space. Its terms are
      dependent, so that the standard error is NaN.

    Args:
        prior: p(z), a prior or a distribution.
        aggregate: q(z), or another distribution.
        num_samples: number of samples from each side, at least 2.
        estimator: ``exact`` or ``nearest``.

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
    check_choice("estimator", estimator, ("exact", "nearest"))
    with torch.no_grad():
        p = prior if isinstance(prior, Distribution) else prior()
        of_p, of_q = p.sample((num_samples,)), aggregate.sample((num_samples,))
        if estimator == "nearest":
            forward, backward = _nearest_ratios(of_p, of_q), _nearest_ratios(of_q, of_p)
        else:
            forward = p.log_prob(of_p).double() - aggregate.log_prob(of_p.double())
            backward = aggregate.log_prob(of_q.double()) - p.log_prob(of_q)
    settings: dict[str, int | float | str] = {"samples": num_samples, "estimator": estimator}
    if isinstance(aggregate, AggregatePosterior):
        settings["components"] = len(aggregate.loc)
    value = float(forward.mean() + backward.mean())
    error = float(((forward.var() + backward.var()) / num_samples).sqrt())
    return Estimate(value, math.nan if estimator == "nearest" else error, settings)


def _nearest_ratios(own: Tensor, other: Tensor) -> Tensor:
    """Return the estimate of log own(z) - log other(z) at each z of the own sample."""
    from sklearn.neighbors import NearestNeighbors

    points, others = own.double().cpu().numpy(), other.double().cpu().numpy()
    within = NearestNeighbors(n_neighbors=1).fit(points).kneighbors()[0][:, 0]
    between = NearestNeighbors(n_neighbors=1).fit(others).kneighbors(points)[0][:, 0]
    ratio = torch.from_numpy(between).log() - torch.from_numpy(within).log()
    return own.shape[1] * ratio + math.log(len(other) / (len(own) - 1))
