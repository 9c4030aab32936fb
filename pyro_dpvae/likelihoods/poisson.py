"""The Poisson likelihood, for counts."""

from typing import final

from jaxtyping import Float
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_dpvae.likelihoods._base import AbstractLikelihood
from pyro_dpvae.likelihoods._counts import LOG_MEAN_RANGE, Counts

__all__ = ["PoissonLikelihood"]


@final
class PoissonLikelihood(AbstractLikelihood):
    """Counts with variance equal to the mean: log p(x) = sum x l - exp(l) - log x!.

    The raw value l is the logarithm of the mean, clamped to [-30, 30].

    Args:
        shape: shape of an item, (C, H, W) or (D,).

    References:
        Zhao, Rai, Du, Buntine, Phung, Zhou (2020), Variational autoencoders for sparse and
        overdispersed discrete data: what a Poisson likelihood misses in overdispersed counts.

    Example:
        >>> import torch
        >>> p = PoissonLikelihood((2,))(torch.zeros(2))
        >>> p.log_prob(torch.tensor([0.0, 1.0]))  # exp(-1) twice
        tensor(-2.)
    """

    rule = "a Poisson likelihood takes counts 0, 1, 2, ..."
    remedy = (
        "pass the counts themselves, not rates or logarithms of them, or use a Gaussian likelihood"
    )

    def pixels(self, raw: Float[Tensor, "..."]) -> TorchDistributionMixin:
        """Return the Poisson distributions of the counts."""
        return Counts(raw.clamp(*LOG_MEAN_RANGE))

    def expansion(
        self, x: Float[Tensor, "..."], raw: Float[Tensor, "..."]
    ) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
        """Return x - mean and the mean."""
        mean = raw.clamp(*LOG_MEAN_RANGE).exp()
        return x - mean, mean
