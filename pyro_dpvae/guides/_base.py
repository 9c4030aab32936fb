"""The base class of guides, q(z | x) for each datum of a batch."""

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_dpvae._randomness import forked_rng
from pyro_dpvae.decoders import AbstractDecoder
from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.guides._fitting import Passes, check_passes, mixture_of, place_components
from pyro_dpvae.mixture.moments import mean_of
from pyro_dpvae.nn.modes import in_evaluation
from pyro_dpvae.ownership import OwnedModule, plain
from pyro_dpvae.priors import AbstractPrior
from pyro_dpvae.priors.product import layers_of
from pyro_dpvae.sites import LATENT, PLATE

__all__ = ["AbstractGuide", "check_latent_dims"]


class AbstractGuide(OwnedModule):
    """A guide that samples z ~ q(z | x), independently for each datum.

    A subclass defines ``posterior``, which the program samples at the single latent site. A guide
    with several sites overrides ``forward``; its concatenated samples have the distribution
    ``posterior(x)``.

    Example:
        A guide that ignores the data:

        >>> import pyro.distributions as dist
        >>> import torch
        >>> class Blind(AbstractGuide):
        ...     def posterior(self, x: Tensor) -> TorchDistributionMixin:
        ...         return dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1)
        >>> Blind()(torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def posterior(self, x: Tensor) -> TorchDistributionMixin:
        """Return q(z | x), of batch shape (batch,) and event shape (L,), for a batch of data."""
        raise NotImplementedError(f"{type(self).__name__} must define posterior(x)")

    @plain
    def forward(self, x: Tensor) -> Tensor:
        """Run the guide on a batch x of shape (batch, *data); return z of shape (batch, L)."""
        with pyro.plate(PLATE, len(x)):
            return pyro.sample(LATENT, self.posterior(x))

    def initialise_clusters(
        self, prior: AbstractPrior, batches: Passes, *, seed: int = 0, progress: bool = True
    ) -> None:
        """Move the components of the model's mixture prior to clusters of the representations.

        Mixtures with random initial values lose components early. Therefore train some steps with
        a small weight of the rate, or none, and then call this. In the generation space of each
        layer's prior, k-means of the means of q(z | x) yields the components' means; samples of
        q(z | x) yield their variances, and the clusters' sizes their weights, if these are
        learned.

        Parameters change in place, and optimizers keep their state. Errors are raised before
        anything changes.

        Args:
            prior: the model's prior: a mixture, couplings over a mixture, or a product of these.
            batches: tensors of shape (batch, *data), the first epoch of which is clustered; or a
                function from the number of an epoch to them, such as ``Batches.epoch``.
            seed: random seed of k-means and samples.
            progress: whether guides that take steps after k-means show a progress bar.

        Raises:
            TypeError: if ``batches`` can be iterated only once.
            ValueError: as :meth:`check_clusters`.

        References:
            Jiang, Zheng, Tan, Tang, Zhou (2017), Variational deep embedding, and Falck et al.
            (2021), Multi-facet clustering variational autoencoders, who also fit initial mixtures
            to representations.

        Example:
            >>> import torch
            >>> from pyro_dpvae.guides import AmortizedGaussian
            >>> from pyro_dpvae.nn import ARCHITECTURES
            >>> from pyro_dpvae.priors import MixturePrior
            >>> guide = AmortizedGaussian(GaussianEncoder(ARCHITECTURES["moons"].encoder((2,)), 2))
            >>> guide.initialise_clusters(MixturePrior(2, components=3), [torch.randn(20, 2)])
        """
        check_passes(batches)
        layers = layers_of(prior)
        sizes = [part.latent_dim for part in layers]
        with torch.no_grad(), in_evaluation(self), forked_rng(seed):
            first = batches(0) if callable(batches) else batches
            pairs = [(mean_of(q), q.sample()) for q in map(self.posterior, first)]
            self.check_clusters(prior, sum(len(mean) for mean, _ in pairs))
            means, draws = (torch.cat(kind).split(sizes, -1) for kind in zip(*pairs, strict=True))
            for part, mean, draw in zip(layers, means, draws, strict=True):
                z0 = part.to_generation(mean)[0], part.to_generation(draw)[0]
                place_components(mixture_of(part), *z0, seed=seed)

    def check_clusters(self, prior: AbstractPrior, data: int) -> None:
        """Raise if :meth:`initialise_clusters` cannot use a prior.

        Args:
            prior: the model's prior.
            data: number of data in an epoch.

        Raises:
            ValueError: if a layer's prior is not a mixture, or has more components than there are
                data.
        """
        for layer, part in enumerate(layers_of(prior), 1):
            number = mixture_of(part).components
            if data < number:
                raise ValueError(
                    f"the {number} clusters of layer {layer} need at least as many data, got "
                    f"{data}; use more data, or a prior with fewer components"
                )


def check_latent_dims(
    encoder: GaussianEncoder, decoder: AbstractDecoder, prior: AbstractPrior
) -> int:
    """Return the size L of z if all three parts agree.

    Raises:
        ValueError: with the three sizes, if they differ.
    """
    sizes = encoder.latent_dim, decoder.latent_dim, prior.latent_dim
    if len(set(sizes)) > 1:
        raise ValueError(
            "encoder, decoder and prior must agree on latent_dim, "
            f"got {sizes[0]}, {sizes[1]} and {sizes[2]}"
        )
    return sizes[0]
