"""Low-posterior samples: prior samples in pockets that the aggregate posterior does not cover."""

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.mixture import AggregatePosterior
from pyro_dpvae.priors import AbstractPrior

__all__ = ["low_posterior_samples"]


def low_posterior_samples(
    prior: AbstractPrior,
    aggregate: AggregatePosterior,
    *,
    samples: int,
    candidates: int,
) -> Float[Tensor, "samples latent"]:
    """Return the ``samples`` of ``candidates`` prior draws of least q(z), the least first.

    The ranking is by the exact mixture over the whole data set and all dimensions of z.

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
    check_positive_int("samples", samples)
    if check_positive_int("candidates", candidates) < samples:
        raise ValueError(
            f"candidates must be at least samples, got {candidates} candidates "
            f"for {samples} samples"
        )
    with torch.no_grad():
        z = prior().sample((candidates,))
        return z[aggregate.log_prob(z.double()).argsort()[:samples]]
