"""Pockets and leaks: samples that one of prior and aggregate posterior has and the other lacks."""

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.mixture import AggregatePosterior
from pyro_dpvae.nn.modes import in_evaluation
from pyro_dpvae.priors import AbstractPrior

__all__ = ["high_posterior_samples", "low_posterior_samples"]


@in_evaluation()
def low_posterior_samples(
    prior: AbstractPrior,
    aggregate: AggregatePosterior,
    *,
    samples: int,
    candidates: int,
) -> Float[Tensor, "samples latent"]:
    """Return the ``samples`` of ``candidates`` prior draws of least q(z), the least first.

    They lie in pockets: likely under the prior, and covered by no datum. The ranking is by the
    exact mixture over the whole data set and all dimensions of z.

    Args:
        prior: p(z).
        aggregate: q(z).
        samples: how many are kept.
        candidates: how many are drawn from the prior, at least ``samples``.

    Raises:
        ValueError: if ``candidates`` is below ``samples``, or a count is below 1.

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs, section 4.1, after Rosca, Lakshminarayanan,
        Mohamed (2018), Distribution Matching in Variational Inference.

    Example:
        >>> from pyro_dpvae.priors import StandardNormal
        >>> q = AggregatePosterior(torch.zeros(1, 2), torch.ones(1, 2))
        >>> z = low_posterior_samples(StandardNormal(2), q, samples=10, candidates=1000)
        >>> bool((z.norm(dim=-1) > 2.5).all())
        True
    """
    _check_counts(samples, candidates)
    with torch.no_grad():
        z = prior().sample((candidates,))
        return z[aggregate.log_prob(z.double()).argsort()[:samples]]


@in_evaluation()
def high_posterior_samples(
    prior: AbstractPrior,
    aggregate: AggregatePosterior,
    *,
    samples: int,
    candidates: int,
) -> Float[Tensor, "samples latent"]:
    """Return the ``samples`` of ``candidates`` draws of q(z) of least p(z), the least first.

    They lie in leaks: representations of data that the prior hardly generates. p(z) is the
    density in representation space, with the log-determinant of the prior's map.

    Args:
        prior: p(z).
        aggregate: q(z).
        samples: how many are kept.
        candidates: how many are drawn from q(z), at least ``samples``.

    Raises:
        ValueError: if ``candidates`` is below ``samples``, or a count is below 1.

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs, section 4.1.

    Example:
        >>> from pyro_dpvae.priors import StandardNormal
        >>> q = AggregatePosterior(torch.tensor([[0.0, 0.0], [9.0, 9.0]]), torch.ones(2, 2))
        >>> z = high_posterior_samples(StandardNormal(2), q, samples=10, candidates=100)
        >>> bool((z > 5).all())
        True
    """
    _check_counts(samples, candidates)
    with torch.no_grad():
        z = aggregate.sample((candidates,))
        return z[prior().log_prob(z).argsort()[:samples]]


def _check_counts(samples: int, candidates: int) -> None:
    check_positive_int("samples", samples)
    if check_positive_int("candidates", candidates) < samples:
        raise ValueError(
            f"candidates must be at least samples, got {candidates} candidates "
            f"for {samples} samples"
        )
