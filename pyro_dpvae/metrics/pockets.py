"""Pockets and leaks: samples of the prior far from q(z), and of q(z) far from the prior."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_dpvae._checks import check_choice, check_positive_int, check_repeated
from pyro_dpvae.metrics.estimate import Estimate
from pyro_dpvae.mixture import AggregatePosterior
from pyro_dpvae.nn.modes import in_evaluation
from pyro_dpvae.priors import AbstractPrior

__all__ = [
    "THRESHOLDS",
    "Space",
    "high_posterior_samples",
    "leakage_curve",
    "log_density",
    "low_posterior_samples",
]

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


THRESHOLDS = (-90.0, -70.0, -50.0, -30.0, -10.0, -1.0)
"""The thresholds of the paper's authors, in nats."""

_FEW = 10


@in_evaluation()
def leakage_curve(
    prior: AbstractPrior,
    aggregate: AggregatePosterior,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    num_samples: int = 3000,
    conditional: bool = False,
    space: Space = "representation",
) -> list[Estimate]:
    """Return the leakage score at each threshold tau, in nats, from one set of samples of q(z).

    With h(z) = log q(z) - log p(z) and a density d(z),

        unconditional   E_q[h(z) 1{log d(z) < tau}]
        conditional     E_q[h(z) | log d(z) < tau]

    In representation space d is p(z), with the log-determinant of the prior's map g. In generation
    space d is p0(g(z)), as in the paper. ``settings`` holds tau and the share of samples below it.
    With fewer than ten such samples the standard error is NaN; with none the score is 0.

    Args:
        prior: p(z).
        aggregate: q(z).
        thresholds: tau, in nats.
        num_samples: number of samples of q(z), at least 2.
        conditional: whether to return the conditional form.
        space: the space of d, ``representation`` or ``generation``.

    Raises:
        ValueError: if ``num_samples`` is below 2, or for an unknown space.

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs, section 5.1, equation 6.

    Example:
        >>> from pyro_dpvae.priors import StandardNormal
        >>> q = AggregatePosterior(torch.tensor([[6.0, 0.0]]), torch.ones(1, 2))
        >>> (score,) = leakage_curve(StandardNormal(2), q, thresholds=[0.0])  # KL, exactly 18
        >>> abs(score.value - 18) < 4 * score.standard_error
        True
    """
    check_repeated("num_samples", num_samples)
    with torch.no_grad():
        z = aggregate.sample((num_samples,))
        log_p = prior().log_prob(z).double()
        excess = aggregate.log_prob(z.double()) - log_p
        density = log_density(prior, z, space=space).double()
    curve = []
    for threshold in thresholds:
        below = density < threshold
        values = excess[below] if conditional else excess * below
        value = float(values.mean()) if len(values) else 0.0
        known = int(below.sum()) >= _FEW
        error = float(values.std()) / math.sqrt(len(values)) if known else math.nan
        settings = {
            "threshold": threshold,
            "samples": num_samples,
            "share_below": float(below.double().mean()),
            "form": "conditional" if conditional else "unconditional",
            "space": space,
            "components": len(aggregate.loc),
        }
        curve.append(Estimate(value, error, settings))
    return curve
