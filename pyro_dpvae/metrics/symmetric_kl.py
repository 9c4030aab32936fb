"""Divergences of prior and aggregate posterior, the parts of the rate, and active units."""

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from pyro_dpvae._checks import check_choice, check_repeated
from pyro_dpvae.metrics.estimate import Estimate, Settings, mean_estimate, sum_estimate
from pyro_dpvae.mixture import AggregatePosterior
from pyro_dpvae.nn.modes import in_evaluation
from pyro_dpvae.priors import AbstractPrior

__all__ = [
    "active_units",
    "kl_divergences",
    "rate_split",
    "split_half_kl",
    "symmetric_kl",
    "unit_activity",
]


@in_evaluation()
def kl_divergences(
    prior: AbstractPrior | Distribution,
    aggregate: AggregatePosterior | Distribution,
    *,
    num_samples: int = 5000,
    estimator: str = "exact",
) -> tuple[Estimate, Estimate]:
    """Return KL(p || q) and KL(q || p) of prior and aggregate posterior, in nats.

    KL(p || q) is large where the prior has mass that no posterior covers; KL(q || p) where
    posteriors lie outside the prior. Each is a mean of log ratios over ``num_samples`` samples of
    its first distribution. The log ratio is

    - ``exact``: computed from the densities, with q(z) over the whole data set;
    - ``nearest``: estimated by d log(s_i / r_i) + log(m / (n - 1)), with the distances r_i and s_i
      to the nearest neighbour in the own and the other sample. It needs no density, but is biased.
      It is the estimator of the dpVAE authors, here in representation space. Its terms are
      dependent, so that the standard error is NaN.

    The exact q(z) has one component per datum, and not those of the data that might have been
    there. Where posteriors are narrow and latents many, this alone makes both divergences large:
    compare them with :func:`split_half_kl`.

    Args:
        prior: p(z), a prior or a distribution.
        aggregate: q(z), or another distribution.
        num_samples: number of samples from each side, at least 2.
        estimator: ``exact`` or ``nearest``.

    Raises:
        ValueError: if ``num_samples`` is below 2, or for an unknown estimator.

    References:
        Perez-Cruz (2008), Kullback-Leibler divergence estimation of continuous distributions,
        equation 14.

    Example:
        >>> from pyro_dpvae.priors import StandardNormal
        >>> q = AggregatePosterior(torch.tensor([[1.0, 0.0]]), torch.ones(1, 2))
        >>> to_q, to_p = kl_divergences(StandardNormal(2), q)  # both exactly 0.5
        >>> abs(to_q.value - 0.5) < 4 * to_q.standard_error
        True
    """
    check_repeated("num_samples", num_samples)
    check_choice("estimator", estimator, ("exact", "nearest"))
    with torch.no_grad():
        p = prior if isinstance(prior, Distribution) else prior()
        of_p, of_q = p.sample((num_samples,)), aggregate.sample((num_samples,))
        if estimator == "nearest":
            ratios = _nearest_ratios(of_p, of_q), _nearest_ratios(of_q, of_p)
        else:
            ratios = (
                p.log_prob(of_p).double() - aggregate.log_prob(of_p.double()),
                aggregate.log_prob(of_q.double()) - p.log_prob(of_q),
            )
    settings: dict[str, int | float | str] = {"samples": num_samples, "estimator": estimator}
    if isinstance(aggregate, AggregatePosterior):
        settings["components"] = len(aggregate.loc)
    forward, backward = (mean_estimate(ratio, settings) for ratio in ratios)
    if estimator == "exact":
        return forward, backward
    return replace(forward, standard_error=math.nan), replace(backward, standard_error=math.nan)


def symmetric_kl(
    prior: AbstractPrior | Distribution,
    aggregate: AggregatePosterior | Distribution,
    *,
    num_samples: int = 5000,
    estimator: str = "exact",
) -> Estimate:
    """Return KL(p || q) + KL(q || p) between prior and aggregate posterior, in nats.

    The arguments, errors and estimators are those of :func:`kl_divergences`.

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs, section 5.1.

    Example:
        >>> from pyro_dpvae.priors import StandardNormal
        >>> q = AggregatePosterior(torch.tensor([[1.0, 0.0]]), torch.ones(1, 2))
        >>> estimate = symmetric_kl(StandardNormal(2), q)  # exactly 1
        >>> abs(estimate.value - 1) < 4 * estimate.standard_error
        True
    """
    return sum_estimate(
        *kl_divergences(prior, aggregate, num_samples=num_samples, estimator=estimator)
    )


def split_half_kl(aggregate: AggregatePosterior, *, num_samples: int = 5000) -> Estimate:
    """Return the symmetric KL divergence between q(z) of one half of the data and of the other.

    It is the noise of :func:`symmetric_kl`, in nats: data of one kind, cut in two at random, have
    one q(z), and whatever separates the halves comes from having too few data for the width of
    the posteriors. A divergence from the prior that is not well above it says nothing. Each
    posterior counts as the normal of its moments.

    Args:
        aggregate: q(z) over at least two data.
        num_samples: number of samples from each half, at least 2.

    Raises:
        ValueError: if there is one component alone, or ``num_samples`` is below 2.

    Example:
        >>> wide = AggregatePosterior(torch.zeros(100, 2), torch.ones(100, 2))
        >>> abs(split_half_kl(wide).value) < 1e-6
        True
    """
    count = len(aggregate.loc)
    if count < 2:
        raise ValueError(f"two halves need at least two components, got {count}")
    order = torch.randperm(count, device=aggregate.loc.device)
    first, second = (
        AggregatePosterior(aggregate.loc[chosen], aggregate.scale[chosen])
        for chosen in order.tensor_split(2)
    )
    return symmetric_kl(first, second, num_samples=num_samples)


def _nearest_ratios(own: Tensor, other: Tensor) -> Tensor:
    """Return the estimate of log own(z) - log other(z) at each z of the own sample."""
    from sklearn.neighbors import NearestNeighbors

    points, others = own.double().cpu().numpy(), other.double().cpu().numpy()
    within = NearestNeighbors(n_neighbors=1).fit(points).kneighbors()[0][:, 0]
    between = NearestNeighbors(n_neighbors=1).fit(others).kneighbors(points)[0][:, 0]
    ratio = torch.from_numpy(between).log() - torch.from_numpy(within).log()
    return own.shape[1] * ratio + math.log(len(other) / (len(own) - 1))


_ACTIVE = 0.01


@in_evaluation()
def rate_split(
    prior: AbstractPrior, aggregate: AggregatePosterior, *, num_samples: int = 5000
) -> dict[str, Estimate]:
    """Return mutual information, total correlation and dimension-wise KL of a data set, in nats.

    With n uniform over the data, z ~ q(z | x_n), and every density exact over the whole data set,
    the rate E[KL(q(z | x) || p(z))] is the sum of

        mutual_information = E[log q(z | x_n) - log q(z)],
        total_correlation  = E[log q(z) - sum_d log q(z_d)],
        dimension_wise_kl  = E[sum_d log q(z_d) - log p(z)].

    Where q(z_d | x) has no closed form, as for a flow, it is approximated by a normal distribution
    with the moments of samples; ``settings`` then says so. ``marginal_kl``, KL(q(z) || p(z)), is
    the sum of the last two terms. Under a prior that does not factorise, such as a coupling prior,
    the last term compares the product of marginals with it.

    Args:
        prior: p(z).
        aggregate: q(z).
        num_samples: number of samples of n and z, at least 2.

    Raises:
        ValueError: if ``num_samples`` is below 2.

    References:
        Hoffman, Johnson (2016), ELBO surgery. Chen et al. (2018), Isolating sources of
        disentanglement in VAEs, equation 2.

    Example:
        >>> from pyro_dpvae.priors import StandardNormal
        >>> q = AggregatePosterior(torch.tensor([[-9.0], [9.0]]), torch.ones(2, 1))
        >>> print(rate_split(StandardNormal(1), q)["mutual_information"])  # log 2
        0.6931 +- 0.0000
    """
    check_repeated("num_samples", num_samples)
    with torch.no_grad():
        z, own = aggregate.sample_pairs(num_samples)
        joint = aggregate.log_prob(z)
        product = torch.stack(
            [q.log_prob(z[:, d : d + 1]) for d, q in enumerate(aggregate.marginals())]
        ).sum(0)
        log_p = prior().log_prob(z.to(aggregate.loc)).double()
    settings: Settings = {"samples": num_samples, "components": len(aggregate.loc)}
    if aggregate.moment_draws is not None and z.shape[1] > 1:
        settings = {**settings, "marginals": f"normal, of {aggregate.moment_draws} draws"}
    terms = {
        "mutual_information": own - joint,
        "total_correlation": joint - product,
        "dimension_wise_kl": product - log_p,
        "marginal_kl": joint - log_p,
        "rate": own - log_p,
    }
    return {name: mean_estimate(term, settings) for name, term in terms.items()}


def unit_activity(aggregate: AggregatePosterior) -> Float[Tensor, " latent"]:
    """Return Var_x(mu_d(x)) of each coordinate d over the data set.

    Where mu(x) is a mean of S samples, as for a flow, the result is too large by E[sigma_d^2(x)] /
    S.

    References:
        Burda, Grosse, Salakhutdinov (2016), Importance weighted autoencoders, section 5.2.
    """
    return aggregate.loc.double().var(0)


def active_units(aggregate: AggregatePosterior) -> Estimate:
    """Return the number of coordinates with an activity above 0.01 over the whole data set.

    Example:
        >>> loc = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
        >>> active_units(AggregatePosterior(loc, torch.ones(2, 2))).value
        1.0
    """
    active = int((unit_activity(aggregate) > _ACTIVE).sum())
    data, units = aggregate.loc.shape
    settings: Settings = {"threshold": _ACTIVE, "data": data, "units": units}
    if aggregate.moment_draws is not None:
        settings = {**settings, "means": f"of {aggregate.moment_draws} draws"}
    return Estimate(float(active), 0.0, settings)
