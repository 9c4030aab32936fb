"""The mutual divergence of a batch's posteriors: diversity and smoothness, MAE."""

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from pyro_dpvae._checks import check_choice
from pyro_dpvae.objectives.penalties.latents import AbstractPenalty, Latents, LatentSite
from pyro_dpvae.objectives.penalties.marginals import coordinate_log_prob, normal_marginals
from pyro_dpvae.objectives.schedules import Weight

__all__ = ["FORMS", "MutualDivergence", "diversity", "pairwise_divergences", "smoothness"]

FORMS = ("paper", "code")
"""Forms of the diversity: the mean over pairs is outside the softplus, or inside."""


def diversity(divergences: Float[Tensor, "pairs *latent"], form: str) -> Float[Tensor, ""]:
    """Return the diversity, which is large for posteriors close to each other.

        paper   mean over pairs of  sum_k softplus(-KL_k)
        code    sum_k softplus(- mean over pairs of KL_k)

    Args:
        divergences: KL_k of ordered pairs, of shape (pairs, L).
        form: one of ``FORMS``.
    """
    if form == "paper":
        return softplus(-divergences).sum(-1).mean()
    return softplus(-divergences.mean(0)).sum(-1).mean()


def smoothness(divergences: Float[Tensor, "pairs *latent"]) -> Float[Tensor, ""]:
    """Return the standard deviation over pairs of sum_k KL_k, with the divisor pairs - 1."""
    variance = divergences.sum(-1).var(0)
    # The derivative of a square root at zero is infinite; here it is zero.
    return variance.clamp(min=torch.finfo(variance.dtype).tiny).sqrt().mean()


def pairwise_divergences(latents: Latents) -> Tensor:
    """Return KL_k(i, j) of the ordered pairs of a batch, (B (B - 1), *particles, L)."""
    divergences = torch.cat([_of_site(site) for site in latents.sites], -1)
    return _off_diagonal(divergences.movedim(-2, 1))


def _of_site(site: LatentSite) -> Tensor:
    """Return KL_k(i, j), of shape (batch i, *particles, batch j, L)."""
    moments = normal_marginals(site.posterior)
    if moments is None:
        pairs = coordinate_log_prob(site.posterior, site.points)
        own = pairs.diagonal(dim1=0, dim2=-2).movedim(-1, 0).unsqueeze(-2)
        return own - pairs
    loc, scale = moments
    loc_i, scale_i = (moment.movedim(-2, 0).unsqueeze(-2) for moment in moments)
    ratio = (scale_i / scale).square()
    return 0.5 * (ratio + ((loc_i - loc) / scale).square() - ratio.log() - 1)


def _off_diagonal(pairs: Tensor) -> Tensor:
    # (B, B, ...) -> (B (B - 1), ...): after the first entry, every (B + 1)-th is on the diagonal.
    size, rest = len(pairs), pairs.shape[2:]
    shifted = pairs.flatten(0, 1)[1:].reshape(size - 1, size + 1, *rest)
    return shifted[:, :-1].reshape(size * (size - 1), *rest)


@final
class MutualDivergence(AbstractPenalty):
    """Mutual posterior divergence: it makes posteriors of different data diverge, and evenly so.

    With KL_k(i, j), the divergence of q(z_k | x_i) from q(z_k | x_j), over the B (B - 1) ordered
    pairs of a batch,

        diversity  = E_ij[ sum_k softplus(-KL_k(i, j)) ]      (the paper's form)
        smoothness = standard deviation over i, j of sum_k KL_k(i, j).

    Divergences between Gaussian coordinates are in closed form; others are estimated at the z of
    the batch. Coordinates of a flow are approximated by normals with mean and variance of 64
    samples.

    Args:
        diversity: eta, the weight of the diversity.
        smoothness: gamma, the weight of the smoothness.
        form: ``paper``, or ``code`` for the published code's mean inside the softplus.

    Raises:
        ValueError: if a weight is negative or the form unknown; on a step, if the batch has one
            datum.
        TypeError: on a step, as :class:`TotalCorrelation`.

    References:
        Ma, Zhou, Hovy (2019), MAE: Mutual posterior-divergence regularization for VAEs.

    Example:
        >>> MutualDivergence(1.0, 0.01).settings
        {'diversity': 1.0, 'smoothness': 0.01, 'form': 'paper'}
    """

    options = ("form",)
    smallest_batch: ClassVar[int] = 2

    def __init__(self, diversity: Weight, smoothness: Weight, *, form: str = "paper") -> None:
        super().__init__(diversity=diversity, smoothness=smoothness)
        self.form = check_choice("form", form, FORMS)

    def forward(self, latents: Latents) -> dict[str, Float[Tensor, ""]]:
        """Return the two terms."""
        divergences = pairwise_divergences(latents)
        spread = smoothness(divergences)
        return {"diversity": diversity(divergences, self.form), "smoothness": spread}
