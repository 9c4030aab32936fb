"""Decoders: modules from z to a distribution p(x|z)."""

from typing import final

import pyro.distributions as dist
from jaxtyping import Float
from torch import Tensor, nn

from pyro_dpvae.likelihoods import AbstractLikelihood
from pyro_dpvae.nn import Batched

__all__ = ["Decoder"]


@final
class Decoder(nn.Module):
    """p(x | z): a network from z to the raw values of a likelihood.

    Args:
        network: z -> raw values, of input shape (L,) and output shape ``likelihood.raw_shape``.
        likelihood: raw values -> p(x | z).

    Raises:
        ValueError: if the two do not fit each other.

    Example:
        >>> import torch
        >>> from pyro_dpvae.likelihoods import Bernoulli
        >>> from pyro_dpvae.nn import ARCHITECTURES
        >>> likelihood = Bernoulli((1, 28, 28))
        >>> network = ARCHITECTURES["mnist"].decoder(10, likelihood.raw_shape)
        >>> Decoder(network, likelihood)(torch.zeros(5, 10)).event_shape
        torch.Size([1, 28, 28])
    """

    def __init__(self, network: Batched, likelihood: AbstractLikelihood) -> None:
        super().__init__()
        if len(network.in_shape) != 1 or network.out_shape != likelihood.raw_shape:
            raise ValueError(
                "a decoder's network must take a vector and put out the raw values "
                f"{likelihood.raw_shape} of {type(likelihood).__name__}, got {network.in_shape} "
                f"-> {network.out_shape}; build it with raw_shape=likelihood.raw_shape"
            )
        self.network = network
        self.likelihood = likelihood
        self.latent_dim = network.in_shape[0]

    def forward(self, z: Float[Tensor, "*batch latent"]) -> dist.Independent:
        """Return p(x | z) for z of shape (*batch, L)."""
        return self.likelihood(self.network(z))
