"""The decoder of a network of raw values: its pixels are independent given z."""

from typing import final

from jaxtyping import Float
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_dpvae.decoders._base import AbstractDecoder, size_of_latents
from pyro_dpvae.likelihoods import AbstractLikelihood
from pyro_dpvae.nn import Batched

__all__ = ["Decoder"]


@final
class Decoder(AbstractDecoder):
    """p(x | z): the likelihood of the network's raw values.

    Args:
        network: z -> raw values, of in_shape (L,) and out_shape ``likelihood.raw_shape``.
        likelihood: raw values -> p(x | z).

    Raises:
        ValueError: if the network does not take a vector, or its output does not fit the
            likelihood.

    Example:
        >>> import torch
        >>> from pyro_dpvae.likelihoods import BernoulliLikelihood
        >>> from pyro_dpvae.nn import ARCHITECTURES
        >>> likelihood = BernoulliLikelihood((1, 28, 28))
        >>> decoder = Decoder(ARCHITECTURES["mnist"].decoder(2, likelihood.raw_shape), likelihood)
        >>> p = decoder(torch.zeros(3, 5, 2))
        >>> p.batch_shape, p.event_shape
        (torch.Size([3, 5]), torch.Size([1, 28, 28]))
    """

    def __init__(self, network: Batched, likelihood: AbstractLikelihood) -> None:
        latent_dim = size_of_latents(network)
        if network.out_shape != likelihood.raw_shape:
            raise ValueError(
                "the decoder's network must return the likelihood's raw values, of shape "
                f"{likelihood.raw_shape}, got {network.out_shape}; "
                "build it with raw_shape = likelihood.raw_shape"
            )
        super().__init__(latent_dim)
        self.network = network
        self.likelihood = likelihood

    def forward(self, z: Float[Tensor, "*batch latent"]) -> TorchDistributionMixin:
        """Return p(x | z), of batch shape (*batch,), for z of shape (*batch, L)."""
        return self.likelihood(self.network(z))
