"""The leakage score: how much of q(z) has a low density under the prior."""

import math
from collections.abc import Sequence

import torch

from pyro_dpvae._checks import check_repeated
from pyro_dpvae.metrics.estimate import Estimate
from pyro_dpvae.metrics.pockets import Space, log_density
from pyro_dpvae.mixture import AggregatePosterior
from pyro_dpvae.nn.modes import in_evaluation
from pyro_dpvae.priors import AbstractPrior

__all__ = ["THRESHOLDS", "leakage_curve"]

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
