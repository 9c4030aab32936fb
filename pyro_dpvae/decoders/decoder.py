"""The decoder whose pixels are independent given z."""

from typing import final

from jaxtyping import Float
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_dpvae.decoders._base import AbstractDecoder, network_of_latents
from pyro_dpvae.likelihoods import AbstractLikelihood

__all__ = ["Decoder"]


@final
class Decoder(AbstractDecoder):
    """p(x | z), the likelihood with the network's output as raw values.

    Args:
        network: z -> raw values, any module from (N, L) to (N, *likelihood.raw_shape).
        likelihood: raw values -> p(x | z).
        latent_dim: size L of z; None takes it from the network, if its first layer is a
            ``torch.nn.Linear``.

    Raises:
        TypeError: if the network is not a module.
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
        >>> layers = nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 784), nn.Unflatten(1, (1, 28, 28))
        >>> Decoder(nn.Sequential(*layers), likelihood)(torch.zeros(3, 2)).event_shape
        torch.Size([1, 28, 28])
    """

    def __init__(
        self,
        network: nn.Module,
        likelihood: AbstractLikelihood,
        *,
        latent_dim: int | None = None,
    ) -> None:
        found = network_of_latents(network, latent_dim)
        if found.out_shape != likelihood.raw_shape:
            raise ValueError(
                "the decoder's network must return the likelihood's raw values, of shape "
                f"{likelihood.raw_shape}, got {found.out_shape}; "
                "build it with raw_shape = likelihood.raw_shape"
            )
        super().__init__(found.in_shape[0])
        self.network = found
        self.likelihood = likelihood

    def forward(self, z: Float[Tensor, "*batch latent"]) -> TorchDistributionMixin:
        """Return p(x | z), of batch shape (*batch,), for z of shape (*batch, L)."""
        return self.likelihood(self.network(z))
