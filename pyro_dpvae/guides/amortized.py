"""The amortized guide, with q(z | x) from one pass through an encoder."""

from typing import final

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.guides._base import AbstractGuide

__all__ = ["AmortizedGaussian"]


@final
class AmortizedGaussian(AbstractGuide):
    """The guide q(z | x) = N(z; mu(x), diag sigma^2(x)), independently for each datum.

    Args:
        encoder: x -> q(z | x).

    References:
        Kingma, Welling (2014), Auto-Encoding Variational Bayes, appendix C.2.

    Example:
        >>> import torch
        >>> from pyro_dpvae.nn import ARCHITECTURES
        >>> guide = AmortizedGaussian(GaussianEncoder(ARCHITECTURES["moons"].encoder((2,)), 2))
        >>> guide(torch.zeros(5, 2)).shape
        torch.Size([5, 2])
    """

    def __init__(self, encoder: GaussianEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def posterior(self, x: Tensor) -> TorchDistributionMixin:
        """Return q(z | x), independent normals, for x of shape (batch, *data)."""
        return self.encoder(x)
