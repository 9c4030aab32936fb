"""The objectives of the papers by name, each with its rate and penalties."""

import operator
from collections.abc import Sequence
from typing import Any, final

from pyro_dpvae._checks import check_choice
from pyro_dpvae.objectives.elbo import RegularizedELBO
from pyro_dpvae.objectives.penalties import (
    DIP,
    MMD,
    AbstractPenalty,
    AdversarialDivergence,
    AdversarialTotalCorrelation,
    MutualDivergence,
    SteinDiscrepancy,
    TotalCorrelation,
)
from pyro_dpvae.objectives.penalties.adversarial import HIDDEN
from pyro_dpvae.objectives.rates import BetaRate, CapacityRate, FreeBitsRate, SoftFreeBitsRate
from pyro_dpvae.objectives.schedules import LinearSchedule, Weight, combined

__all__ = [
    "DIPELBO",
    "BetaELBO",
    "BetaTCELBO",
    "CapacityELBO",
    "FactorELBO",
    "FreeBitsELBO",
    "InfoELBO",
    "MutualDivergenceELBO",
    "SoftFreeBitsELBO",
]


@final
class BetaELBO(RegularizedELBO):
    """REC + beta KL: beta-VAE (Higgins et al., 2017, equation 4).

    Args:
        beta: the weight of the rate, 0 or more.
        options: further arguments of :class:`RegularizedELBO`.

    Example:
        >>> BetaELBO(4.0).settings["rate"]["beta"]
        4.0
    """

    def __init__(self, beta: Weight = 4.0, **options: Any) -> None:
        super().__init__(rate=BetaRate(beta), **options)


@final
class CapacityELBO(RegularizedELBO):
    """REC + gamma |KL - C|: beta-VAE with a growing capacity (Burgess et al., 2018, equation 8).

    Args:
        gamma: the weight of the distance.
        capacity: C, in nats per datum.
        per_sample: use the distance of each datum instead of the batch mean's.
        options: further arguments of :class:`RegularizedELBO`.

    Example:
        >>> CapacityELBO(15.0, LinearSchedule(0.0, 25.0, 10_000)).settings["rate"]["capacity"]
        'LinearSchedule(0, 25, 10000)'
    """

    def __init__(
        self,
        gamma: Weight = 1000.0,
        capacity: Weight = LinearSchedule(0.0, 25.0, 100_000),  # noqa: B008
        *,
        per_sample: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(rate=CapacityRate(gamma, capacity, per_sample=per_sample), **options)


@final
class FreeBitsELBO(RegularizedELBO):
    """REC + sum over groups of max(lambda, KL): free bits (Kingma et al., 2016, equation 15).

    Args:
        threshold: lambda, in nats per group.
        group_size: number of coordinates in a group; None makes each latent site a group.
        options: further arguments of :class:`RegularizedELBO`.

    Example:
        >>> FreeBitsELBO(7.84).settings["rate"]["threshold"]
        7.84
    """

    def __init__(
        self, threshold: Weight = 8.0, *, group_size: int | None = None, **options: Any
    ) -> None:
        super().__init__(rate=FreeBitsRate(threshold, group_size=group_size), **options)


@final
class SoftFreeBitsELBO(RegularizedELBO):
    """REC + gamma KL, gamma adapted to a target of KL: soft free bits (Chen et al., 2017, app. C).

    Args:
        target: target of the rate, in nats per datum.
        tolerance: fraction of the target by which the rate may exceed it.
        options: further arguments of :class:`RegularizedELBO`.

    Example:
        >>> SoftFreeBitsELBO(10.0).settings["rate"]["tolerance"]
        0.05
    """

    def __init__(self, target: Weight = 8.0, *, tolerance: float = 0.05, **options: Any) -> None:
        super().__init__(rate=SoftFreeBitsRate(target, tolerance=tolerance), **options)


@final
class BetaTCELBO(RegularizedELBO):
    """REC + alpha MI + beta TC + gamma DW: beta-TCVAE (Chen et al., 2018, equation 4).

    It is computed in the equivalent form gamma KL + (alpha - gamma) MI + (beta - gamma) TC, with
    the divergence in closed form where there is one.

    Args:
        beta: the weight of the total correlation.
        dataset_size: the number of training items.
        alpha: the weight of the mutual information.
        gamma: the weight of the dimension-wise divergence from the prior.
        estimator: estimator of q(z), see :class:`TotalCorrelation`.
        options: further arguments of :class:`RegularizedELBO`.

    Example:
        >>> BetaTCELBO(6.0, dataset_size=60_000).settings["penalties"][0]["total_correlation"]
        5.0
    """

    def __init__(
        self,
        beta: Weight = 6.0,
        *,
        dataset_size: int,
        alpha: Weight = 1.0,
        gamma: Weight = 1.0,
        estimator: str = "stratified",
        **options: Any,
    ) -> None:
        penalty = TotalCorrelation(
            combined("{} - {}", operator.sub, beta, gamma),
            mutual_information=combined("{} - {}", operator.sub, alpha, gamma),
            dataset_size=dataset_size,
            estimator=estimator,
        )
        super().__init__(rate=BetaRate(gamma), penalties=[penalty], **options)


@final
class FactorELBO(RegularizedELBO):
    """REC + KL + gamma TC, with an adversary for TC: FactorVAE (Kim, Mnih, 2018, equation 2).

    Args:
        gamma: the weight of the total correlation.
        latent_dim: the size of z.
        hidden: the widths of the adversary's layers.
        learning_rate: learning rate of the adversary's Adam optimizer, with betas (0.5, 0.9).
        options: further arguments of :class:`RegularizedELBO`.

    Example:
        >>> FactorELBO(10.0, latent_dim=4).settings["penalties"][0]["learning_rate"]
        0.0001
    """

    def __init__(
        self,
        gamma: Weight = 10.0,
        *,
        latent_dim: int,
        hidden: Sequence[int] = HIDDEN,
        learning_rate: float = 1e-4,
        **options: Any,
    ) -> None:
        penalty = AdversarialTotalCorrelation(
            gamma, latent_dim=latent_dim, hidden=hidden, learning_rate=learning_rate
        )
        super().__init__(penalties=[penalty], **options)


@final
class InfoELBO(RegularizedELBO):
    """REC + (1 - alpha) KL + (alpha + lambda - 1) D(q(z), p(z)): InfoVAE (Zhao et al., 2019).

    Args:
        alpha: the weight of the mutual information of x and z, at most 1.
        lambda_: the weight of the divergence D; alpha + lambda must be at least 1.
        latent_dim: the size of z, which the adversarial divergence needs.
        divergence: D: ``mmd``, ``adversarial`` or ``stein``.
        kernel: kernel of ``mmd``: ``rbf`` (the default), ``imq`` or ``authors``.
        bandwidth: bandwidth of the kernel of ``mmd`` and ``stein``; by default sqrt(L).
        options: further arguments of :class:`RegularizedELBO`.

    Raises:
        ValueError: for weights out of range, an unknown divergence, ``adversarial`` without
            ``latent_dim``, or an option of another divergence.

    Example:
        >>> InfoELBO(0.0, 1000.0).settings["penalties"][0]["mmd"]
        999.0
    """

    def __init__(
        self,
        alpha: Weight = 0.0,
        lambda_: Weight = 1000.0,
        *,
        latent_dim: int | None = None,
        divergence: str = "mmd",
        kernel: str | None = None,
        bandwidth: float | None = None,
        **options: Any,
    ) -> None:
        if not callable(alpha) and alpha > 1:
            raise ValueError(f"alpha must be at most 1 in InfoVAE, got {alpha}")
        if not callable(alpha) and not callable(lambda_) and alpha + lambda_ < 1:
            raise ValueError(
                f"alpha + lambda must be at least 1 in InfoVAE, got {alpha} + {lambda_}"
            )
        weight = combined("{} + {} - 1", _weight_of_divergence, alpha, lambda_)
        check_choice("divergence", divergence, ("mmd", "adversarial", "stein"))
        if kernel is not None and divergence != "mmd":
            raise ValueError(f"kernel applies to mmd only, got {kernel!r} for {divergence!r}")
        if bandwidth is not None and divergence == "adversarial":
            raise ValueError(f"bandwidth does not apply to an adversary, got {bandwidth}")
        penalty: AbstractPenalty
        if divergence == "mmd":
            penalty = MMD(weight, kernel=kernel or "rbf", bandwidth=bandwidth)
        elif divergence == "stein":
            penalty = SteinDiscrepancy(weight, bandwidth=bandwidth)
        elif latent_dim is None:
            raise ValueError(
                "the adversarial divergence needs latent_dim, the size of z, got None; use "
                "InfoELBO(..., latent_dim=L)"
            )
        else:
            penalty = AdversarialDivergence(weight, latent_dim=latent_dim)
        rate = BetaRate(combined("1 - {}", _weight_of_rate, alpha))
        super().__init__(rate=rate, penalties=[penalty], **options)


@final
class MutualDivergenceELBO(RegularizedELBO):
    """REC + KL + eta diversity + gamma smoothness: mutual posterior divergence (Ma et al., 2019).

    The paper does not give its weights; the defaults are those of a published reproduction. The
    authors' code uses max(free bits, KL).

    Args:
        eta: the weight of the diversity.
        gamma: the weight of the smoothness.
        form: form of the diversity, ``paper`` or ``code``; see :class:`MutualDivergence`.
        free_bits: free bits of each latent site's KL, in nats per datum; 0 uses KL itself.
        options: further arguments of :class:`RegularizedELBO`.

    Example:
        >>> MutualDivergenceELBO(1.0, 0.01).settings["penalties"][0]["form"]
        'paper'
    """

    def __init__(
        self,
        eta: Weight = 1.0,
        gamma: Weight = 0.01,
        *,
        form: str = "paper",
        free_bits: Weight = 0.0,
        **options: Any,
    ) -> None:
        # An estimate of KL may be negative, where free bits of 0 would stop the gradient.
        rate = FreeBitsRate(free_bits) if callable(free_bits) or free_bits != 0 else BetaRate()
        penalty = MutualDivergence(eta, gamma, form=form)
        super().__init__(rate=rate, penalties=[penalty], **options)


@final
class DIPELBO(RegularizedELBO):
    """REC + KL + the covariance of q(z) against the identity: DIP-VAE (Kumar et al., 2018).

    Args:
        off_diagonal: the weight of the off-diagonal entries.
        diagonal: the weight of the diagonal; the paper uses ten times ``off_diagonal`` for form I
            and the same for form II.
        form: ``I`` or ``II``.
        options: further arguments of :class:`RegularizedELBO`.

    Example:
        >>> DIPELBO(5.0, 5.0, form="II").settings["penalties"][0]["form"]
        'II'
    """

    def __init__(
        self,
        off_diagonal: Weight = 10.0,
        diagonal: Weight = 100.0,
        *,
        form: str = "I",
        **options: Any,
    ) -> None:
        super().__init__(penalties=[DIP(off_diagonal, diagonal, form=form)], **options)


def _weight_of_rate(alpha: float) -> float:
    return 1 - alpha


def _weight_of_divergence(alpha: float, lambda_: float) -> float:
    return alpha + lambda_ - 1
