"""The covariance of q(z) against the identity: DIP-VAE."""

from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_dpvae._checks import check_choice
from pyro_dpvae.objectives.penalties.base import AbstractPenalty
from pyro_dpvae.objectives.penalties.latents import Latents, flatten_event
from pyro_dpvae.objectives.penalties.marginals import posterior_covariance, posterior_mean
from pyro_dpvae.objectives.schedules import Weight

__all__ = ["DIP"]

_FORMS = ("I", "II")


@final
class DIP(AbstractPenalty):
    """Disentangled inferred prior: the covariance of the representations against the identity.

        off_diagonal = sum_{i != j} C_ij^2,    diagonal = sum_i (C_ii - 1)^2

    Form I takes C = Cov_x[mu(x)], the covariance of the posterior means; form II the covariance
    of q(z), C = E_x[Sigma(x)] + Cov_x[mu(x)], or of the z drawn where Sigma is not known: with
    several sites, which may depend on each other, it is not.
    Covariances are those of the batch, with the divisor B - 1. Form I takes the mean of 64 draws
    where mu is not known, as of a flow; that adds Sigma(x) / 64 to C in expectation.

    Args:
        off_diagonal: the weight of the off-diagonal entries.
        diagonal: the weight of the diagonal ones; the paper takes ten times ``off_diagonal`` for
            form I and as much for form II.
        form: ``I`` or ``II``.

    Raises:
        ValueError: if a weight is negative or the form unknown; on a step, if the batch has one
            datum.
        TypeError: on a step of form I, if q(z | x) has no known mean and its draws no gradients.

    References:
        Kumar, Sattigeri, Balakrishnan (2018), Variational inference of disentangled latent
        concepts from unlabeled observations, equations 5 to 7.

    Example:
        >>> DIP(10.0, 100.0).settings
        {'off_diagonal': 10.0, 'diagonal': 100.0, 'form': 'I'}
    """

    smallest_batch: ClassVar[int] = 2

    def __init__(self, off_diagonal: Weight, diagonal: Weight, *, form: str = "I") -> None:
        super().__init__(off_diagonal=off_diagonal, diagonal=diagonal)
        self.form = check_choice("form", form, _FORMS)

    def forward(self, latents: Latents) -> dict[str, Float[Tensor, ""]]:
        """Return the two terms."""
        covariance = _of_means(latents) if self.form == "I" else _of_aggregate(latents)
        diagonal = covariance.diagonal(dim1=-2, dim2=-1)
        squares = covariance.square().sum((-2, -1)) - diagonal.square().sum(-1)
        return {
            "off_diagonal": squares.mean(),
            "diagonal": (diagonal - 1).square().sum(-1).mean(),
        }

    @property
    def settings(self) -> dict[str, Any]:
        """The weights and the form."""
        return {**super().settings, "form": self.form}


def _of_means(latents: Latents) -> Tensor:
    means = []
    for site in latents.sites:
        mean = posterior_mean(site.posterior)
        if mean is None:
            raise TypeError(
                "DIP-VAE I needs a q(z | x) of known mean, or whose draws have gradients to take "
                f"the mean of, got {type(site.posterior).__name__}; use the form 'II'"
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
