"""The base class of guides: q(z | x) at the latent site, for each datum of a batch."""

import pyro
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_dpvae.decoders import AbstractDecoder
from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.guides._clusters import check_start, start_clusters
from pyro_dpvae.guides._growth import Passes
from pyro_dpvae.ownership import OwnedModule, plain
from pyro_dpvae.priors import AbstractPrior
from pyro_dpvae.sites import LATENT, PLATE

__all__ = ["AbstractGuide", "check_latent_dims"]


class AbstractGuide(OwnedModule):
    """A guide that samples z ~ q(z | x), independently for each datum.

    A subclass defines ``posterior``, which metrics and plots also use. The program samples it at
    the single latent site. A guide with several sites overrides ``forward``; its concatenated
    samples have the distribution ``posterior(x)``.

    Example:
        The prior itself as a guide, whatever the datum:

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
        """Put the components of the model's prior where the data's representations have clusters.

        Mixtures that start at random lose components early. So, after some steps of training
        without a rate (``BetaRate`` with a weight of 0), or with a small one: k-means of the
        means of q(z | x), in the generation space of the prior, gives the components their means,
        and draws of q(z | x) their variances, and weights where these are learned. In a ladder
        this is done for each layer. Training goes on from there with the whole rate.

        Parameters change in place. Run it between steps; optimizers go on as they were. What is
        refused is refused before anything changes, and before training by :meth:`check_clusters`.

        Args:
            prior: the model's: a mixture, couplings over a mixture, or a product of these.
            batches: tensors of shape (batch, *data), of which the first pass is clustered; or a
                function from the number of a pass to such tensors, as ``Batches.epoch`` is.
            seed: of k-means and of draws.
            progress: whether a bar is shown, by guides that take steps after k-means.

        Raises:
            TypeError: if ``batches`` cannot be passed through again.
            ValueError: as :meth:`check_clusters`.

        References:
            Jiang, Zheng, Tan, Tang, Zhou (2017), Variational deep embedding, and Falck et al.
            (2021), Multi-facet clustering variational autoencoders, whose mixtures start from a
            fit to representations too.

        Example:
            >>> import torch
            >>> from pyro_dpvae.guides import AmortizedGaussian
            >>> from pyro_dpvae.nn import ARCHITECTURES
            >>> from pyro_dpvae.priors import MixturePrior
            >>> guide = AmortizedGaussian(GaussianEncoder(ARCHITECTURES["moons"].encoder((2,)), 2))
            >>> guide.initialise_clusters(MixturePrior(2, components=3), [torch.randn(20, 2)])
        """
        start_clusters(self, prior, batches, seed=seed, check=self.check_clusters)

    def check_clusters(self, prior: AbstractPrior, data: int) -> None:
        """Refuse what :meth:`initialise_clusters` could not start from, at no cost.

        Args:
            prior: the model's.
            data: the number of data in a pass.

        Raises:
            ValueError: if the prior, or that of a layer, is no mixture; or if there are fewer data
                than components.
        """
        check_start(prior, data)


def check_latent_dims(
    encoder: GaussianEncoder, decoder: AbstractDecoder, prior: AbstractPrior
) -> int:
    """Return the size L of z after checking that all three agree.

    Raises:
        ValueError: with the three sizes.
    """
    sizes = encoder.latent_dim, decoder.latent_dim, prior.latent_dim
    if len(set(sizes)) > 1:
        raise ValueError(
            "encoder, decoder and prior must agree on latent_dim, "
            f"got {sizes[0]}, {sizes[1]} and {sizes[2]}"
        )
    return sizes[0]
