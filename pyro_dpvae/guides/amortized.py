"""The amortized guide: q(z | x) comes from one pass through an encoder."""

from typing import final

import pyro
from torch import Tensor

from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.ownership import OwnedModule
from pyro_dpvae.sites import LATENT, PLATE

__all__ = ["AmortizedGaussian"]


@final
class AmortizedGaussian(OwnedModule):
    """The guide q(z | x) = N(z; mu(x), diag sigma^2(x)), independently for each datum.

    Args:
        encoder: x -> q(z | x).

    References:
        Kingma, Welling (2014), Auto-Encoding Variational Bayes, appendix C.2.

    Example:
        >>> import torch
        >>> from pyro_dpvae.nn import ARCHITECTURES
        >>> guide = AmortizedGaussian(GaussianEncoder(ARCHITECTURES["moons"].encoder((2,), 4)))
        >>> guide(torch.zeros(5, 2)).shape
        torch.Size([5, 2])
    """

    def __init__(self, encoder: GaussianEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        """Run the guide on a batch x of shape (batch, *data); returns z of shape (batch, L)."""
        with pyro.plate(PLATE, len(x)):
            return pyro.sample(LATENT, self.encoder(x))
