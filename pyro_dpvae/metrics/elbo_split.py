"""The parts of the rate under the exact aggregate posterior, and active units."""

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_dpvae._checks import check_repeated
from pyro_dpvae.metrics.estimate import Estimate, Settings, mean_estimate
from pyro_dpvae.mixture import AggregatePosterior
from pyro_dpvae.nn.modes import in_evaluation
from pyro_dpvae.priors import AbstractPrior

__all__ = ["active_units", "rate_split", "unit_activity"]

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
