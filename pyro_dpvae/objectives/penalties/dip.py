"""The distance of the covariance of q(z) from the identity: DIP-VAE."""

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_dpvae._checks import check_choice
from pyro_dpvae.objectives.penalties.latents import AbstractPenalty, Latents
from pyro_dpvae.objectives.penalties.marginals import (
    flatten_event,
    posterior_covariance,
    posterior_mean,
)
from pyro_dpvae.objectives.schedules import Weight

__all__ = ["DIP"]


@final
class DIP(AbstractPenalty):
    """Disentangled inferred prior: the distance of a covariance C of z from the identity.

        off_diagonal = sum_{i != j} C_ij^2,    diagonal = sum_i (C_ii - 1)^2

    In form I, C = Cov_x[mu(x)] with the posterior means; for a flow, mu is the mean of 64 samples,
    which adds Sigma(x) / 64 to C in expectation. In form II, C is the covariance of q(z),
    E_x[Sigma(x)] + Cov_x[mu(x)]; with an unknown Sigma or several sites, it is that of the sampled
    z. Covariances are those of the batch, with the divisor B - 1.

    Args:
        off_diagonal: the weight of the off-diagonal entries.
        diagonal: the weight of the diagonal; the paper uses ten times ``off_diagonal`` for form I
            and the same for form II.
        form: ``I`` or ``II``.

    Raises:
        ValueError: if a weight is negative or the form unknown; on a step, if the batch has one
            datum.
        TypeError: on a step of form I, if q(z | x) has no known mean and no samples with
            gradients.

    References:
        Kumar, Sattigeri, Balakrishnan (2018), Variational inference of disentangled latent
        concepts from unlabeled observations, equations 5 to 7.

    Example:
        >>> DIP(10.0, 100.0).settings
        {'off_diagonal': 10.0, 'diagonal': 100.0, 'form': 'I'}
    """

    options = ("form",)
    smallest_batch: ClassVar[int] = 2

    def __init__(self, off_diagonal: Weight, diagonal: Weight, *, form: str = "I") -> None:
        super().__init__(off_diagonal=off_diagonal, diagonal=diagonal)
        self.form = check_choice("form", form, ("I", "II"))

    def forward(self, latents: Latents) -> dict[str, Float[Tensor, ""]]:
        """Return the two terms."""
        covariance = _of_means(latents) if self.form == "I" else _of_aggregate(latents)
        diagonal = covariance.diagonal(dim1=-2, dim2=-1)
        squares = covariance.square().sum((-2, -1)) - diagonal.square().sum(-1)
        return {
            "off_diagonal": squares.mean(),
            "diagonal": (diagonal - 1).square().sum(-1).mean(),
        }


def _of_means(latents: Latents) -> Tensor:
    means = []
    for site in latents.sites:
        mean = posterior_mean(site.posterior)
        if mean is None:
            raise TypeError(
                "q(z | x) must have a known mean, or samples with gradients, for DIP form 'I'; "
                f"got {type(site.posterior).__name__}; use form 'II'"
            )
        means.append(flatten_event(mean, site.posterior))
    return _covariance(torch.cat(means, -1))


def _of_aggregate(latents: Latents) -> Tensor:
    if len(latents.sites) > 1:
        return _covariance(latents.value)
    within = posterior_covariance(latents.sites[0].posterior)
    if within is None:
        return _covariance(latents.value)
    return within.mean(-3) + _of_means(latents)


def _covariance(z: Tensor) -> Tensor:
    """Return the covariance over the batch, (*particles, L, L), of z (*particles, batch, L)."""
    centred = z - z.mean(-2, keepdim=True)
    return centred.mT @ centred / (z.shape[-2] - 1)
