"""Where a point lies among draws: in a pocket, in a leak, outside, or where both are."""

from dataclasses import dataclass

from torch import Tensor

from pyro_dpvae.explore.state import RATIO, Place

__all__ = ["Standing", "share_above", "standing"]

_LOW = 0.8  # below four fifths of draws: among the fifth of least density
_OUTSIDE = 0.99


@dataclass(frozen=True)
class Standing:
    """How the densities at a point compare with those at draws.

    Attributes:
        q_among_prior: the share of the prior's draws where q(z) is higher than here.
        p_among_aggregate: the share of the aggregate posterior's draws where p(z) is higher.
        p_among_prior: the share of the prior's own draws where p(z) is higher.
        q_among_aggregate: the share of the aggregate posterior's own draws where q(z) is higher.
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

        A pocket is where the prior draws, q(z) is among the least fifth of what it is there, and
        log q(z) is at least 1 nat below log p(z); a leak is the same with the sides exchanged;
        outside, neither side draws. Where only the ratio is missing, both cover the tail.
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
    """Return where one point stands among draws of both sides.

    Args:
        here: the point, one.
        prior: draws from p(z).
        aggregate: draws from q(z).
    """
    return Standing(
        q_among_prior=share_above(here.log_q, prior.log_q),
        p_among_aggregate=share_above(here.log_p, aggregate.log_p),
        p_among_prior=share_above(here.log_p, prior.log_p),
        q_among_aggregate=share_above(here.log_q, aggregate.log_q),
        log_ratio=float(here.log_q - here.log_p),
    )


def share_above(value: Tensor, draws: Tensor) -> float:
    """Return the share of draws that are above a value.

    Example:
        >>> import torch
        >>> share_above(torch.tensor(1.5), torch.tensor([0.0, 1.0, 2.0, 3.0]))
        0.5
    """
    return float((draws > value).double().mean())
