"""Encoders, from a network's output to the posterior q(z | x)."""

from typing import final

import pyro.distributions as dist
from jaxtyping import Float
from torch import Tensor, nn

from pyro_dpvae.nn import Batched

__all__ = ["GaussianEncoder", "WeightedGaussianEncoder", "diagonal_normal"]

# Scales from 5e-5 to 2e4, which overflow nowhere in float32, squared neither.
_LOG_VARIANCE_RANGE = (-20.0, 20.0)


def diagonal_normal(
    mean: Float[Tensor, "*batch latent"], log_variance: Float[Tensor, "*batch latent"]
) -> dist.Independent:
    """Return N(mu, diag sigma^2), of event shape (L,), with log sigma^2 cut to [-20, 20].

    Args:
        mean: mu, of shape (*batch, L).
        log_variance: log sigma^2, of shape (*batch, L).

    Example:
        >>> import torch
        >>> diagonal_normal(torch.zeros(5, 2), torch.full((5, 2), 1e6)).stddev.log()[0]
        tensor([10., 10.])
    """
    scale = (log_variance.clamp(*_LOG_VARIANCE_RANGE) / 2).exp()
    return dist.Normal(mean, scale).to_event(1)


@final
class GaussianEncoder(nn.Module):
    """q(z | x) = N(z; mu(x), diag sigma^2(x)).

    The network's first L outputs are mu(x), the other L are log sigma^2(x), which is cut to
    [-20, 20]: sigma stays within exp(-10) and exp(10).

    Args:
        network: x -> (mu, log sigma^2), of out_shape (2 L,).

    Attributes:
        latent_dim: the size L of z.

    Raises:
        ValueError: if the network's output is not a vector of even size.

    References:
        Kingma, Welling (2014), Auto-Encoding Variational Bayes, appendix C.2.

    Example:
        >>> import torch
        >>> from pyro_dpvae.nn import ARCHITECTURES
        >>> encoder = GaussianEncoder(ARCHITECTURES["mnist"].encoder((1, 28, 28), 4))
        >>> encoder.latent_dim
        2
        >>> encoder(torch.zeros(5, 1, 28, 28)).batch_shape
        torch.Size([5])
    """

    def __init__(self, network: Batched) -> None:
        if len(network.out_shape) != 1 or network.out_shape[0] % 2:
            raise ValueError(
                "the encoder's network must return a mean and a log variance for each latent, "
                f"a vector of even size, got the shape {network.out_shape}; "
                "build it with features = 2 * latent_dim"
            )
        super().__init__()
        self.network = network
        self.latent_dim = network.out_shape[0] // 2

    def forward(self, x: Float[Tensor, "..."]) -> dist.Independent:
        """Return q(z | x), of event shape (L,), for x of shape (*batch, *data)."""
        return diagonal_normal(*self.network(x).chunk(2, dim=-1))


@final
class WeightedGaussianEncoder(nn.Module):
    """A component of a mixture: N(z; mu(x), diag sigma^2(x)), and its weight's logit l(x).

    The network's first L outputs are mu(x), the next L are log sigma^2(x), cut as in
    ``GaussianEncoder``, and the last is l(x). Weights are softmax_m l_m(x) over the components m
    of a mixture.

    Args:
        network: x -> (mu, log sigma^2, l), of out_shape (2 L + 1,).

    Attributes:
        latent_dim: the size L of z.

    Raises:
        ValueError: if the network's output is not a vector of odd size, at least 3.

    Example:
        >>> import torch
        >>> from pyro_dpvae.nn import ARCHITECTURES
        >>> encoder = WeightedGaussianEncoder(ARCHITECTURES["moons"].encoder((2,), 9))
        >>> normal, logit = encoder(torch.zeros(5, 2))
        >>> encoder.latent_dim, normal.event_shape, logit.shape
        (4, torch.Size([4]), torch.Size([5]))
    """

    def __init__(self, network: Batched) -> None:
        if len(network.out_shape) != 1 or network.out_shape[0] < 3 or not network.out_shape[0] % 2:
            raise ValueError(
                "the network of a weighted encoder must return a mean and a log variance for each "
                f"latent and one logit, a vector of odd size, got the shape {network.out_shape}; "
                "build it with features = 2 * latent_dim + 1"
            )
        super().__init__()
        self.network = network
        self.latent_dim = network.out_shape[0] // 2

    def forward(self, x: Float[Tensor, "..."]) -> tuple[dist.Independent, Float[Tensor, "..."]]:
        """Return the normal and its logit, of shape (*batch), for x of shape (*batch, *data)."""
        sizes = (self.latent_dim, self.latent_dim, 1)
        mean, log_variance, logit = self.network(x).split(sizes, dim=-1)
        return diagonal_normal(mean, log_variance), logit.squeeze(-1)
