"""The negative binomial likelihood, for counts that vary more than a Poisson variable."""

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_dpvae.likelihoods._base import AbstractLikelihood
from pyro_dpvae.likelihoods._counts import LOG_MEAN_RANGE, Counts

__all__ = ["NegativeBinomialLikelihood"]

# Counts of a Poisson variable have no least dispersion that fits them best: learned without a
# bound, its inverse grows for ever.
_FLOOR = 1e-6


@final
class NegativeBinomialLikelihood(AbstractLikelihood):
    """Counts of variance mean + dispersion mean^2, the dispersion learned for each channel.

        p(x) = Gamma(x + r) / (Gamma(r) x!) (r / (r + mean))^r (mean / (r + mean))^x,
        r    = 1 / dispersion

    The raw value is the logarithm of the mean, cut to [-30, 30]. The dispersion is
    1e-6 + softplus(parameter), and starts at 0.69; where it is near 0, the counts are those of a
    Poisson likelihood, and it stays there. The density is in a form that has all its digits in
    float32 for any dispersion.

    Args:
        shape: of a datum, (C, H, W) or (D,); there is a dispersion for each channel of an image,
            or for each column of a vector.

    References:
        Lopez, Regier, Cole, Jordan, Yosef (2018), Deep generative modeling for single-cell
        transcriptomics: a learned inverse dispersion for each gene.

    Example:
        >>> p = NegativeBinomialLikelihood((2,))(torch.zeros(5, 2))
        >>> p.log_prob(torch.tensor([0.0, 3.0])).shape
        torch.Size([5])
    """

    rule = "a negative binomial likelihood takes counts 0, 1, 2, ..."
    remedy = (
        "give the counts themselves, not rates or logarithms of them, or use a Gaussian likelihood"
    )

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        self.raw_dispersion = nn.Parameter(torch.zeros(self.shape[0]))

    @property
    def dispersion(self) -> Float[Tensor, " channels"]:
        """The dispersion of each channel."""
        return _FLOOR + F.softplus(self.raw_dispersion)

    def pixels(self, raw: Float[Tensor, "..."]) -> TorchDistributionMixin:
        """Return the negative binomial distributions of the counts."""
        return Counts(raw.clamp(*LOG_MEAN_RANGE), self._placed())

    def expansion(
        self, x: Float[Tensor, "..."], raw: Float[Tensor, "..."]
    ) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
        """Return (x - mean) / (1 + d mean) and mean (1 + d x) / (1 + d mean)^2."""
        mean, d = raw.clamp(*LOG_MEAN_RANGE).exp(), self._placed()
        spread = 1 + d * mean
        return (x - mean) / spread, mean * (1 + d * x) / spread.square()

    def _placed(self) -> Tensor:
        """Return the dispersions in the dimension of the channels."""
        return self.dispersion.reshape(-1, *(1 for _ in self.shape[1:]))
