"""Pockets and leaks: samples of the prior far from q(z), and of q(z) far from the prior."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_dpvae._checks import check_choice, check_positive_int
from pyro_dpvae.mixture import AggregatePosterior
from pyro_dpvae.nn.modes import in_evaluation
from pyro_dpvae.priors import AbstractPrior

__all__ = ["Space", "high_posterior_samples", "log_density", "low_posterior_samples"]

Space = Literal["representation", "generation"]


@in_evaluation()
def low_posterior_samples(
    prior: AbstractPrior,
    aggregate: AggregatePosterior,
    *,
    num_samples: int,
    keep: int,
) -> Float[Tensor, "kept latent"]:
    """Return the prior samples of lowest q(z), the lowest first.

    They lie in pockets: likely under the prior, but far from all data. q(z) is the exact mixture
    over the whole data set.

    Args:
        prior: p(z).
        aggregate: q(z).
        num_samples: number of samples of the prior.
        keep: number of samples to return, at most ``num_samples``.

    Raises:
        ValueError: if ``keep`` is above ``num_samples``, or a count is below 1.

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs, section 4.1, after Rosca, Lakshminarayanan, Mohamed
        (2018), Distribution Matching in Variational Inference.

    Example:
        >>> from pyro_dpvae.priors import StandardNormal
        >>> q = AggregatePosterior(torch.zeros(1, 2), torch.ones(1, 2))
        >>> z = low_posterior_samples(StandardNormal(2), q, num_samples=1000, keep=10)
        >>> bool((z.norm(dim=-1) > 2.5).all())
        True
    """
    _check_counts(num_samples, keep)
    with torch.no_grad():
        z = prior().sample((num_samples,))
        return z[aggregate.log_prob(z.double()).argsort()[:keep]]


@in_evaluation()
def high_posterior_samples(
    prior: AbstractPrior,
    aggregate: AggregatePosterior,
    *,
    num_samples: int,
    keep: int,
    space: Space = "representation",
) -> Float[Tensor, "kept latent"]:
    """Return the samples of q(z) of lowest p(z), the lowest first.

    They lie in leaks: representations of data that the prior hardly generates.

    Args:
        prior: p(z).
        aggregate: q(z).
        num_samples: number of samples of q(z).
        keep: number of samples to return, at most ``num_samples``.
        space: the density that ranks them: p(z) in ``representation`` space; p0(g(z)), without the
            log-determinant of the prior's map g, in ``generation`` space, as in the paper.

    Raises:
        ValueError: as :func:`low_posterior_samples`, or for an unknown space.

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs, section 4.1.

    Example:
        >>> from pyro_dpvae.priors import StandardNormal
        >>> q = AggregatePosterior(torch.tensor([[0.0, 0.0], [9.0, 9.0]]), torch.ones(2, 2))
        >>> z = high_posterior_samples(StandardNormal(2), q, num_samples=100, keep=10)
        >>> bool((z > 5).all())
        True
    """
    _check_counts(num_samples, keep)
    with torch.no_grad():
        z = aggregate.sample((num_samples,))
        return z[log_density(prior, z, space=space).argsort()[:keep]]


def _check_counts(num_samples: int, keep: int) -> None:
    check_positive_int("keep", keep)
    if check_positive_int("num_samples", num_samples) < keep:
        raise ValueError(
            f"keep must be at most num_samples, got {keep} of {num_samples} samples; draw more, "
            "or keep fewer"
        )


def log_density(
    prior: AbstractPrior, z: Float[Tensor, "*batch latent"], *, space: Space
) -> Float[Tensor, "*batch"]:
    """Return log p(z), or log p0(g(z)) without the log-determinant of the prior's map g.

    Args:
        prior: p(z).
        z: points in representation space.
        space: ``representation`` for log p(z), ``generation`` for log p0(g(z)).

    Raises:
        ValueError: for an unknown space.
    """
    check_choice("space", space, ("representation", "generation"))
    with torch.no_grad():
        if space == "representation":
            return prior().log_prob(z)
        return prior.base().log_prob(prior.to_generation(z)[0])
