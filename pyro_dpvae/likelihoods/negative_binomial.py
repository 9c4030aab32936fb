"""The negative binomial likelihood, for counts with more variance than a Poisson variable."""

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

# For Poisson-distributed counts the best dispersion is 0: without a bound, its inverse would grow
# forever.
_FLOOR = 1e-6


@final
class NegativeBinomialLikelihood(AbstractLikelihood):
    """Counts with variance mean + dispersion mean^2, and a learned dispersion for each channel.

        p(x) = Gamma(x + r) / (Gamma(r) x!) (r / (r + mean))^r (mean / (r + mean))^x,
        r    = 1 / dispersion

    The raw value is the logarithm of the mean, clamped to [-30, 30]. The dispersion is 1e-6 +
    softplus(parameter), initially 0.69. Near 0 the counts are Poisson-distributed, and the
    dispersion stays there. The density is computed precisely in float32 for any dispersion.

    Args:
        shape: shape of an item, (C, H, W) or (D,); each channel of an image, or column of a
            vector, has its own dispersion.

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
        "pass the counts themselves, not rates or logarithms of them, or use a Gaussian likelihood"
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
        """Return the dispersions, shaped to broadcast over the channels."""
        return self.dispersion.reshape(-1, *(1 for _ in self.shape[1:]))
