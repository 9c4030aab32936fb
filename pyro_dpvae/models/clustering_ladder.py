"""The clustering ladder: a ladder autoencoder with clusters in every layer."""

from collections.abc import Sequence
from typing import cast, final

import pyro
from torch import Tensor

from pyro_dpvae.decoders import AbstractDecoder
from pyro_dpvae.models.ladder import joined
from pyro_dpvae.models.vae import AbstractVAE, plate_size
from pyro_dpvae.nn import check_wiring
from pyro_dpvae.priors import AbstractPrior, ProductPrior
from pyro_dpvae.sites import OBSERVED, PLATE, cluster, layer_site

__all__ = ["ClusteringLadderVAE"]


@final
class ClusteringLadderVAE(AbstractVAE):
    """VLAC: the model p(x | z_1, ..., z_L) prod_l p(y_l) p(z_l | y_l), for each datum.

    Each layer l of a ladder has its own prior with clusters, y_l at the site ``"y_l"`` and z_l at
    ``"z_l"``, so that each layer clusters the data, and all layers do so jointly. The paper's
    abstract describes the idea: a ladder with a Gaussian mixture and a cluster variable in each
    layer. That layers are independent under p is derived from the ladder that it builds on. Priors
    other than Gaussian mixtures, such as a ``CouplingPrior`` over one, are ours.

    Args:
        priors: priors of the layers, bottom first, each with clusters.
        decoder: p(x | z) of the concatenated layers.

    Attributes:
        prior: the product of the priors, with the clusters summed out.

    Raises:
        ValueError: if there is no prior, a prior has no clusters, or priors and decoder differ in
            the sizes of layers.

    References:
        Willetts, Roberts, Holmes (2019), Disentangling to cluster: Gaussian mixture variational
        ladder autoencoders. Zhao, Song, Ermon (2017), Learning hierarchical features from
        generative models, section 5, for the ladder.

    Example:
        >>> from pyro_dpvae.decoders import Decoder
        >>> from pyro_dpvae.likelihoods import BernoulliLikelihood
        >>> from pyro_dpvae.nn import LADDERS
        >>> from pyro_dpvae.priors import MixturePrior
        >>> likelihood = BernoulliLikelihood((1, 28, 28))
        >>> build = LADDERS["ladder-mnist"].decoder
        >>> network = build(4, likelihood.raw_shape, latent_dims=(2, 2), width=4)
        >>> priors = [MixturePrior(2, components=5), MixturePrior(2, components=3)]
        >>> ClusteringLadderVAE(priors, Decoder(network, likelihood))(size=5).shape
        torch.Size([5, 1, 28, 28])
    """

    prior: ProductPrior

    def __init__(self, priors: Sequence[AbstractPrior], decoder: AbstractDecoder) -> None:
        prior = ProductPrior(priors)
        check_wiring("priors", prior.latent_dims, decoder)
        for part in priors:
            part.cluster_prior()  # raises for a prior without clusters
        super().__init__(prior, decoder)

    def forward(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """Run the model on a batch x of shape (batch, *data), or sample ``size`` items."""
        with pyro.plate(PLATE, plate_size(x, size)):
            z = []
            for layer, prior in enumerate(cast(Sequence[AbstractPrior], self.prior.priors), 1):
                y = pyro.sample(cluster(layer), prior.cluster_prior())
                z.append(pyro.sample(layer_site(layer), prior.conditional(y)))
            return pyro.sample(OBSERVED, self.decoder(joined(z)), obs=x)
