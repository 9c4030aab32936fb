"""The kind of a point, from its densities: a pocket, a leak, outside, or covered."""

from dataclasses import dataclass

from torch import Tensor

from pyro_dpvae.explore.state import RATIO, Place

__all__ = ["Standing", "share_above", "standing"]

_LOW = 0.8  # four fifths of samples have a higher density
_OUTSIDE = 0.99


@dataclass(frozen=True)
class Standing:
    """Compare the densities at a point with those at samples.

    Attributes:
        q_among_prior: fraction of the prior's samples where q(z) is higher than here.
        p_among_aggregate: fraction of the aggregate posterior's samples where p(z) is higher.
        p_among_prior: fraction of the prior's own samples where p(z) is higher.
        q_among_aggregate: fraction of the aggregate posterior's own samples where q(z) is higher.
        log_ratio: log q(z) - log p(z), in nats; the same in both spaces.
    """

    q_among_prior: float
    p_among_aggregate: float
    p_among_prior: float
    q_among_aggregate: float
    log_ratio: float

    @property
    def kind(self) -> str:
        """``pocket``, ``leak``, ``outside``, ``tail`` or ``covered``.

        In a pocket the prior has samples, q(z) is among the least fifth of its values at them, and
        log q(z) is at least 1 nat below log p(z). A leak is the same with p and q exchanged.
        Outside, neither side has samples. Where only the ratio is too small, both cover the tail.
        """
        prior_draws = self.p_among_prior <= _OUTSIDE
        data_lie = self.q_among_aggregate <= _OUTSIDE
        if not prior_draws and not data_lie:
            return "outside"
        q_is_low = prior_draws and self.q_among_prior >= _LOW
        p_is_low = data_lie and self.p_among_aggregate >= _LOW
        if q_is_low and self.log_ratio <= -RATIO:
            return "pocket"
        if p_is_low and self.log_ratio >= RATIO:
            return "leak"
        return "tail" if q_is_low or p_is_low else "covered"


def standing(here: Place, prior: Place, aggregate: Place) -> Standing:
    """Compare one point with samples of both sides.

    Args:
        here: the point.
        prior: samples from p(z).
        aggregate: samples from q(z).
    """
    return Standing(
        q_among_prior=share_above(here.log_q, prior.log_q),
        p_among_aggregate=share_above(here.log_p, aggregate.log_p),
        p_among_prior=share_above(here.log_p, prior.log_p),
        q_among_aggregate=share_above(here.log_q, aggregate.log_q),
        log_ratio=float(here.log_q - here.log_p),
    )


def share_above(value: Tensor, draws: Tensor) -> float:
    """Return the fraction of samples that are above a value.

    Example:
        >>> import torch
        >>> share_above(torch.tensor(1.5), torch.tensor([0.0, 1.0, 2.0, 3.0]))
        0.5
    """
    return float((draws > value).double().mean())
