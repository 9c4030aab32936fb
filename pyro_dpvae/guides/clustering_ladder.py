"""The guide of a clustering ladder, whose clusters are summed out."""

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
from pyro_dpvae.guides._fitting import Passes, fit_logits
from pyro_dpvae.nn import check_wiring
from pyro_dpvae.priors import AbstractPrior
from pyro_dpvae.priors.product import layers_of
from pyro_dpvae.sites import PLATE, cluster, layer_site

__all__ = ["ClusteringLadderGuide"]


@final
class ClusteringLadderGuide(AbstractGuide):
    """The guide prod_l q(y_l | .) N(z_l; mu_l(x), diag sigma_l^2(x)) of a clustering ladder.

    We do not know the paper's form of q(y_l). The encoder decides between two forms of the
    literature:

    - a ``ClusteringEncoder`` has logits of q(y_l | x), as in deep generative models with labels;
    - a ``GaussianEncoder`` has q(y_l | z_l) = p(y_l | z_l), the prior's responsibilities at the
      sample z_l, as in variational deep embedding and multi-facet clustering. This is the optimal
      q(y_l): the ELBO is that of a ladder whose priors have y_l summed out.

    In both, q(z_l | x) does not depend on y_l, which is our interpretation. ``RegularizedELBO``
    and importance weights sum over y_l exactly. Under ``FreeBitsRate``, y_l and z_l are two
    groups.

    Args:
        encoder: x -> q(z | x) of the concatenated layers, with or without logits of clusters.
        priors: the model's priors, bottom first. They must be the same objects as in the model:
            with p(y | z) of copies the ELBO is looser, and the copies are trained separately.

    Attributes:
        latent_dims: the sizes of the layers, bottom first.

    Raises:
        ValueError: if a prior has no clusters, or priors and encoder differ in sizes of layers or
            numbers of clusters.

    References:
        Willetts, Roberts, Holmes (2019), Disentangling to cluster: Gaussian mixture variational
        ladder autoencoders. Kingma, Rezende, Mohamed, Welling (2014), Semi-supervised learning
        with deep generative models, equation 7, for q(y | x). Jiang, Zheng, Tan, Tang, Zhou
        (2017), Variational deep embedding, and Falck et al. (2021), Multi-facet clustering
        variational autoencoders, for p(y | z).

    Example:
        >>> from pyro_dpvae.nn import LADDERS
        >>> from pyro_dpvae.priors import MixturePrior
        >>> priors = [MixturePrior(2, components=5), MixturePrior(3, components=4)]
        >>> network = LADDERS["ladder-mlp"].encoder((4,), latent_dims=(2, 3), width=8)
        >>> guide = ClusteringLadderGuide(GaussianEncoder(network, 5), priors)
        >>> [one.shape for one in guide.cluster_probabilities(torch.zeros(6, 4))]
        [torch.Size([6, 5]), torch.Size([6, 4])]
    """

    def __init__(
        self, encoder: ClusteringEncoder | GaussianEncoder, priors: Sequence[AbstractPrior]
    ) -> None:
        sizes = tuple(prior.latent_dim for prior in priors)
        clusters = tuple(prior.cluster_prior().logits.shape[-1] for prior in priors)
        if sum(sizes) != encoder.latent_dim:
            raise ValueError(
                "sizes of the priors must add up to the encoder's latent_dim, got "
                f"{sizes} and {encoder.latent_dim}; build both for the same layers"
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
        # With logits of its own the guide does not use the priors.
        self.priors = None if networked else nn.ModuleList(priors)

    def posterior(self, x: Tensor) -> dist.Independent:
        """Return q(z | x) of the concatenated layers, for x of shape (batch, *data)."""
        return self._encoded(x)[0]

    def cluster_probabilities(self, x: Tensor) -> list[Float[Tensor, "batch _"]]:
        """Return q(y_l | x) of each layer, (batch, K_l), bottom first.

        With a ``GaussianEncoder`` it is p(y_l | z_l) at the mean of q(z_l | x).
        """
        q, logits = self._encoded(x)
        if logits is None:
            means = q.mean.split(self.latent_dims, -1)
            logits = [prior.log_joint(z) for prior, z in zip(self._priors(), means, strict=True)]
        return [one.softmax(-1) for one in logits]

    def forward(self, x: Tensor) -> Tensor:
        """Run the guide on a batch x of shape (batch, *data); return z of shape (batch, L)."""
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
        """Move each layer's components to clusters of representations, and fit q(y_l | x) to them.

        The components move as in :meth:`AbstractGuide.initialise_clusters`. Then the logits of a
        ``ClusteringEncoder`` are fitted to p(y_l | z_l) by Adam, which a term KL(old q(z | x) ||
        q(z | x)) keeps close to the old q(z | x). The paper does not describe initial clusters;
        this is our choice.

        Args:
            prior: the model's prior.
            batches: as in :meth:`AbstractGuide.initialise_clusters`.
            seed: random seed of k-means and samples.
            progress: whether to show a progress bar for the steps.
            steps: number of steps of Adam.
            learning_rate: learning rate of Adam.

        Raises:
            TypeError: if ``batches`` can be iterated only once.
            ValueError: as :meth:`check_clusters`, or if an option is not positive.

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
        """Raise if :meth:`initialise_clusters` cannot use a prior.

        Args:
            prior: the model's prior.
            data: number of data in an epoch.

        Raises:
            ValueError: as for every guide; if the layers are not the guide's; or, for p(y | z), if
                the guide was built with other priors.
        """
        layers = layers_of(prior)
        sizes = tuple(part.latent_dim for part in layers)
        if sizes != self.latent_dims:
            raise ValueError(
                f"prior and guide must have the same layers, got sizes {sizes} and "
                f"{self.latent_dims}; pass the prior of the guide's model"
            )
        own = self._priors()
        if own and any(mine is not part for mine, part in zip(own, layers, strict=True)):
            raise ValueError(
                "prior must consist of the priors that the guide was built with, for clusters "
                "p(y | z), got others; build model and guide with the same priors"
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
