"""The base class of models, and the variational autoencoder: any prior, any decoder."""

from typing import final

import pyro
from torch import Tensor

from pyro_dpvae._checks import check_kind, check_positive_int
from pyro_dpvae.decoders import AbstractDecoder
from pyro_dpvae.ownership import OwnedModule, plain
from pyro_dpvae.priors import AbstractPrior
from pyro_dpvae.sites import LATENT, OBSERVED, PLATE

__all__ = ["VAE", "AbstractVAE", "plate_size"]


class AbstractVAE(OwnedModule):
    """A model p(x, z) = p(z) p(x | z) of a prior and a decoder.

    The Pyro program samples z at one site. A model with latents at several sites overrides
    ``forward``; concatenated to one vector z they have the distribution ``prior()``, and
    ``decoder(z)`` is the distribution of the data. Metrics, plots and sampling use only these two.

    Args:
        prior: p(z).
        decoder: p(x | z).

    Raises:
        TypeError: if an argument has another type.
        ValueError: if prior and decoder differ in the size of z.
    """

    def __init__(self, prior: AbstractPrior, decoder: AbstractDecoder) -> None:
        check_kind(
            "prior",
            prior,
            AbstractPrior,
            rule="a prior of this library, such as StandardNormal(2); wrap a distribution in "
            "FixedPrior",
        )
        check_kind(
            "decoder",
            decoder,
            AbstractDecoder,
            rule="a decoder, such as Decoder(network, likelihood), or your own subclass of "
            "AbstractDecoder",
        )
        if prior.latent_dim != decoder.latent_dim:
            raise ValueError(
                "prior and decoder must agree on latent_dim, "
                f"got {prior.latent_dim} and {decoder.latent_dim}"
            )
        super().__init__()
        self.prior = prior
        self.decoder = decoder

    @plain
    def forward(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """Run the model on a batch x of shape (batch, *data), or sample ``size`` items."""
        with pyro.plate(PLATE, plate_size(x, size)):
            z = pyro.sample(LATENT, self.prior())
            return pyro.sample(OBSERVED, self.decoder(z), obs=x)


def plate_size(x: Tensor | None, size: int) -> int:
    """Return the batch size: that of x, or else ``size``.

    Raises:
        ValueError: if there is no x, and ``size`` is below 1.
    """
    return check_positive_int("size", size) if x is None else len(x)


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
