"""Encoders: modules from data to a distribution q(z|x)."""

from typing import final

import pyro.distributions as dist
from jaxtyping import Float
from torch import Tensor, nn

from pyro_dpvae.nn import Batched

__all__ = ["GaussianEncoder"]

# exp of a log-variance beyond these would overflow, or vanish, in float32 after a bad step.
_LOG_VARIANCES = (-20.0, 20.0)


@final
class GaussianEncoder(nn.Module):
    """q(z | x) = N(z; mu(x), diag sigma^2(x)), both from one network.

    Args:
        network: x -> (mu, log sigma^2), of output shape (2L,); log sigma^2 is kept in [-20, 20].

    Raises:
        ValueError: if the network's output is not a vector of even size.

    Example:
        >>> import torch
        >>> from pyro_dpvae.nn import ARCHITECTURES
        >>> encoder = GaussianEncoder(ARCHITECTURES["mnist"].encoder((1, 28, 28), 20))
        >>> encoder(torch.zeros(5, 1, 28, 28)).event_shape
        torch.Size([10])
    """

    def __init__(self, network: Batched) -> None:
        super().__init__()
        if len(network.out_shape) != 1 or network.out_shape[0] % 2:
            raise ValueError(
                "an encoder's network must put out a vector of means and log-variances, of even "
                f"size, got {network.out_shape}; build it with features=2 * latent_dim"
            )
        self.network = network
        self.latent_dim = network.out_shape[0] // 2

    def forward(self, x: Float[Tensor, "..."]) -> dist.Independent:
        """Return q(z | x) for x of shape (*batch, *data)."""
        mean, log_variance = self.network(x).chunk(2, dim=-1)
        deviation = (0.5 * log_variance.clamp(*_LOG_VARIANCES)).exp()
        return dist.Normal(mean, deviation).to_event(1)
