"""The clustering ladder's guide: clusters and latents of every layer, clusters summed out."""

from collections.abc import Sequence
from typing import cast, final

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_dpvae._checks import check_positive, check_positive_int
from pyro_dpvae.encoders import ClusteringEncoder, GaussianEncoder
from pyro_dpvae.guides._base import AbstractGuide
from pyro_dpvae.guides._clusters import fit_logits
from pyro_dpvae.guides._growth import Passes
from pyro_dpvae.nn import check_wiring
from pyro_dpvae.priors import AbstractPrior
from pyro_dpvae.priors.product import layers_of
from pyro_dpvae.sites import PLATE, cluster, layer_site

__all__ = ["ClusteringLadderGuide"]


@final
class ClusteringLadderGuide(AbstractGuide):
    """The guide prod_l q(y_l | .) N(z_l; mu_l(x), diag sigma_l^2(x)) of a clustering ladder.

    The paper's form of q(y_l) is not known to us. There are two treatments in the literature
    around it, and the encoder says which:

    - a ``ClusteringEncoder`` has logits of its own for q(y_l | x), and y_l is drawn before z_l,
      as in deep generative models with labels;
    - under a ``GaussianEncoder``, q(y_l | z_l) = p(y_l | z_l), the prior's responsibilities at
      the draw of z_l, as in variational deep embedding and multi-facet clustering. It is the best
      q(y_l) for the draw: the bound is that of a ladder whose priors have y_l summed out.

    In both, q(z_l | x) does not depend on y_l, which is our reading. The sites y_l are marked for
    enumeration: the ``RegularizedELBO`` sums them out exactly, and so do importance weights. Under
    ``FreeBitsRate``, y_l and z_l are two groups.

    Args:
        encoder: x -> q(z | x) of the layers side by side, with or without logits of clusters.
        priors: the model's own, the same objects, bottom first. Under p(y | z) a guide of other
            priors has a looser bound and trains them beside the model's, unseen.

    Attributes:
        latent_dims: the sizes of the layers, bottom first.

    Raises:
        ValueError: if a prior has no clusters, or the sizes of layers or the numbers of clusters
            are not the encoder's.

    References:
        Willetts, Roberts, Holmes (2019), Disentangling to cluster: Gaussian mixture variational
        ladder autoencoders. Kingma, Rezende, Mohamed, Welling (2014), Semi-supervised learning
        with deep generative models, equation 7, for a network's q(y | x). Jiang, Zheng, Tan,
        Tang, Zhou (2017), Variational deep embedding, and Falck et al. (2021), Multi-facet
        clustering variational autoencoders, for p(y | z).

    Example:
        >>> from pyro_dpvae.nn import LADDERS
        >>> from pyro_dpvae.priors import MixturePrior
        >>> priors = [MixturePrior(2, components=5), MixturePrior(3, components=4)]
        >>> build = LADDERS["ladder-mnist"].encoder
        >>> network = build((1, 28, 28), latent_dims=(2, 3), width=4)
        >>> guide = ClusteringLadderGuide(GaussianEncoder(network, 5), priors)
        >>> [one.shape for one in guide.cluster_probabilities(torch.zeros(6, 1, 28, 28))]
        [torch.Size([6, 5]), torch.Size([6, 4])]
    """

    def __init__(
        self, encoder: ClusteringEncoder | GaussianEncoder, priors: Sequence[AbstractPrior]
    ) -> None:
        sizes = tuple(prior.latent_dim for prior in priors)
        clusters = tuple(prior.cluster_prior().logits.shape[-1] for prior in priors)
        if sum(sizes) != encoder.latent_dim:
            raise ValueError(
                f"the priors' sizes must add up to the encoder's latent_dim, got {sizes} and "
                f"{encoder.latent_dim}; build both for the same layers"
            )
        check_wiring("priors", sizes, encoder)
        networked = isinstance(encoder, ClusteringEncoder)
        if networked and (encoder.latent_dims, encoder.clusters) != (sizes, clusters):
            raise ValueError(
                "encoder and priors must have the same layers and clusters, got sizes "
                f"{encoder.latent_dims} and {sizes}, clusters {encoder.clusters} and {clusters}"
            )
        super().__init__()
        self.encoder, self.latent_dims = encoder, sizes
        # Those of a network's treatment are none of the guide's: it does not use them.
        self.priors = None if networked else nn.ModuleList(priors)

    def posterior(self, x: Tensor) -> dist.Independent:
        """Return q(z | x) of all layers side by side, for x of shape (batch, *data)."""
        return self._encoded(x)[0]

    def cluster_probabilities(self, x: Tensor) -> list[Float[Tensor, "batch _"]]:
        """Return q(y_l | x) of each layer, (batch, K_l), bottom first.

        Of a network these are its own; those of p(y_l | z_l) are taken at the mean of q(z_l | x).
        """
        q, logits = self._encoded(x)
        if logits is None:
            means = q.mean.split(self.latent_dims, -1)
            logits = [prior.log_joint(z) for prior, z in zip(self._priors(), means, strict=True)]
        return [one.softmax(-1) for one in logits]

    def forward(self, x: Tensor) -> Tensor:
        """Run the guide on a batch x of shape (batch, *data); returns z of shape (batch, L)."""
        q, logits = self._encoded(x)
        normals = zip(
            *(part.split(self.latent_dims, -1) for part in (q.base_dist.loc, q.base_dist.scale)),
            strict=True,
        )
        z = []
        with pyro.plate(PLATE, len(x)):
            for layer, (loc, scale) in enumerate(normals, 1):
                if logits is not None:
                    _sample_cluster(layer, logits[layer - 1])
                z.append(pyro.sample(layer_site(layer), dist.Normal(loc, scale).to_event(1)))
                if logits is None:
                    _sample_cluster(layer, self._priors()[layer - 1].log_joint(z[-1]))
        return torch.cat(z, -1)

    def initialise_clusters(
        self,
        prior: AbstractPrior,
        batches: Passes,
        *,
        seed: int = 0,
        progress: bool = True,
        steps: int = 300,
        learning_rate: float = 1e-3,
    ) -> None:
        """Put each layer's clusters where representations have some, and fit q(y_l | x) to them.

        The clusters start as those of every guide do. A network's q(y_l | x) is then fitted to
        p(y_l | z_l) by steps of Adam that keep q(z | x) as it is, up to their KL divergence: it
        would have to learn which cluster is which while the clusters move. How the clusters of
        the paper start is not known to us, and this fit is ours.

        Args:
            prior: the model's.
            batches: as of every guide.
            seed: of k-means and of draws.
            progress: whether the steps have a bar.
            steps: the number of steps that fit a network's q(y | x).
            learning_rate: of these.

        Raises:
            TypeError: if ``batches`` cannot be passed through again.
            ValueError: as :meth:`check_clusters`; or if an option is not positive.

        Example:
            >>> from pyro_dpvae.nn import LADDERS
            >>> from pyro_dpvae.priors import MixturePrior, ProductPrior
            >>> priors = [MixturePrior(2, components=3), MixturePrior(1, components=2)]
            >>> network = LADDERS["ladder-mlp"].encoder((4,), latent_dims=(2, 1), width=8)
            >>> guide = ClusteringLadderGuide(GaussianEncoder(network, 3), priors)
            >>> guide.initialise_clusters(ProductPrior(priors), [torch.randn(20, 4)])
        """
        check_positive_int("steps", steps)
        check_positive("learning_rate", learning_rate)
        super().initialise_clusters(prior, batches, seed=seed, progress=progress)
        if isinstance(self.encoder, ClusteringEncoder):
            fit_logits(
                self.encoder,
                layers_of(prior),
                batches,
                steps=steps,
                learning_rate=learning_rate,
                progress=progress,
            )

    def check_clusters(self, prior: AbstractPrior, data: int) -> None:
        """Refuse what :meth:`initialise_clusters` could not start from, at no cost.

        Args:
            prior: the model's.
            data: how many data a pass has.

        Raises:
            ValueError: if the layers are not the guide's; if, under p(y | z), the priors are not
                those that the guide was built on; if a layer's prior is no mixture; or if there
                are fewer data than components.
        """
        layers = layers_of(prior)
        sizes = tuple(part.latent_dim for part in layers)
        if sizes != self.latent_dims:
            raise ValueError(
                f"prior and guide must have the same layers, got sizes {sizes} and "
                f"{self.latent_dims}; give the prior of the model that the guide is for"
            )
        own = self._priors()
        if own and any(mine is not part for mine, part in zip(own, layers, strict=True)):
            raise ValueError(
                "under p(y | z) the guide's clusters are those of the priors that it was built "
                "on, got others to start from data; build model and guide on the same priors"
            )
        super().check_clusters(prior, data)

    def _encoded(self, x: Tensor) -> tuple[dist.Independent, list[Tensor] | None]:
        if isinstance(self.encoder, ClusteringEncoder):
            return self.encoder(x)
        return self.encoder(x), None

    def _priors(self) -> list[AbstractPrior]:
        return [cast(AbstractPrior, prior) for prior in self.priors or ()]


def _sample_cluster(layer: int, logits: Tensor) -> None:
    q = dist.Categorical(logits=logits)
    pyro.sample(cluster(layer), q, infer={"enumerate": "parallel"})
