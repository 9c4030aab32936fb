"""The variational autoencoder: any prior, any decoder."""

from typing import final

import pyro
from torch import Tensor

from pyro_dpvae.models._base import AbstractVAE, plate_size
from pyro_dpvae.ownership import plain
from pyro_dpvae.sites import LATENT, OBSERVED, PLATE

__all__ = ["VAE"]


@final
class VAE(AbstractVAE):
    """The model p(x, z) = p(z) p(x | z), independently for each datum.

    Args:
        prior: p(z); with a ``CouplingPrior`` the model is a dpVAE.
        decoder: p(x | z).

    Raises:
        ValueError: if prior and decoder differ in the size of z.

    References:
        Kingma, Welling (2014), Auto-Encoding Variational Bayes. Bhalodia, Lee, Elhabian (2020),
        dpVAEs, section 4.2.

    Example:
        >>> from pyro_dpvae.decoders import Decoder
        >>> from pyro_dpvae.likelihoods import GaussianLikelihood
        >>> from pyro_dpvae.nn import ARCHITECTURES
        >>> from pyro_dpvae.priors import CouplingPrior
        >>> likelihood = GaussianLikelihood((2,), variance=0.01)
        >>> network = ARCHITECTURES["moons"].decoder(2, likelihood.raw_shape)
        >>> model = VAE(CouplingPrior(2), Decoder(network, likelihood))
        >>> model(size=5).shape
        torch.Size([5, 2])
    """

    @plain
    def forward(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """Run the model on a batch x of shape (batch, *data), or sample ``size`` items."""
        with pyro.plate(PLATE, plate_size(x, size)):
            z = pyro.sample(LATENT, self.prior())
            return pyro.sample(OBSERVED, self.decoder(z), obs=x)
