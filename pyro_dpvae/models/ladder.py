"""The variational ladder autoencoder, with latents in several layers of one decoder."""

from collections.abc import Sequence
from typing import final

import pyro
import torch
from torch import Tensor

from pyro_dpvae.decoders import AbstractDecoder
from pyro_dpvae.models.vae import AbstractVAE, plate_size
from pyro_dpvae.nn import check_wiring
from pyro_dpvae.priors import AbstractPrior, ProductPrior
from pyro_dpvae.sites import OBSERVED, PLATE, layer_site

__all__ = ["LadderVAE", "joined"]


def joined(z: Sequence[Tensor]) -> Tensor:
    """Concatenate the latents of layers, of which a user may fix some to values that broadcast."""
    batch = torch.broadcast_shapes(*(layer.shape[:-1] for layer in z))
    return torch.cat([layer.expand(*batch, -1) for layer in z], -1)


@final
class LadderVAE(AbstractVAE):
    """The model p(x, z) = p(z_1) ... p(z_L) p(x | z_1, ..., z_L), independently for each datum.

    The ladder is in the decoder's network, which takes z_1 next to the data and z_L at the top.
    Each layer has its own site, ``"z_1"`` to ``"z_L"``, and its own prior: N(0, I) in the paper; a
    ``CouplingPrior`` turns a layer into that of a dpVAE.

    For one decoupled prior over all layers together use a ``VAE`` with the ladder's decoder:
    ``VAE(CouplingPrior(sum(latent_dims)), decoder)``, which has the single site ``"z"`` and takes
    ``AmortizedGaussian(encoder)`` as its guide.

    Args:
        priors: priors of the layers, bottom first.
        decoder: p(x | z) of the concatenated layers.

    Attributes:
        prior: the product of the priors.

    Raises:
        ValueError: if there is no prior, or priors and decoder differ in the sizes of layers.

    References:
        Zhao, Song, Ermon (2017), Learning hierarchical features from generative models,
        section 5. Priors other than N(0, I) are ours.

    Example:
        >>> from pyro_dpvae.decoders import Decoder
        >>> from pyro_dpvae.likelihoods import BernoulliLikelihood
        >>> from pyro_dpvae.nn import LADDERS
        >>> from pyro_dpvae.priors import CouplingPrior, StandardNormal
        >>> likelihood = BernoulliLikelihood((1, 28, 28))
        >>> build = LADDERS["ladder-mnist"].decoder
        >>> network = build(6, likelihood.raw_shape, latent_dims=(2, 2, 2), width=4)
        >>> priors = [StandardNormal(2), StandardNormal(2), CouplingPrior(2)]
        >>> LadderVAE(priors, Decoder(network, likelihood))(size=5).shape
        torch.Size([5, 1, 28, 28])
    """

    prior: ProductPrior

    def __init__(self, priors: Sequence[AbstractPrior], decoder: AbstractDecoder) -> None:
        prior = ProductPrior(priors)
        check_wiring("priors", prior.latent_dims, decoder)
        super().__init__(prior, decoder)

    def forward(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """Run the model on a batch x of shape (batch, *data), or sample ``size`` items."""
        with pyro.plate(PLATE, plate_size(x, size)):
            priors = enumerate(self.prior.priors, 1)
            z = [pyro.sample(layer_site(layer), prior()) for layer, prior in priors]
            return pyro.sample(OBSERVED, self.decoder(joined(z)), obs=x)
