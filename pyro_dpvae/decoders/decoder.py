"""The base class of decoders, the decoder of pixels independent given z, and images to show."""

from abc import ABC, abstractmethod
from typing import final

from jaxtyping import Float
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.likelihoods import AbstractLikelihood
from pyro_dpvae.nn import Batched, measured

__all__ = ["AbstractDecoder", "Decoder", "images", "network_of_latents", "shows"]


class AbstractDecoder(nn.Module, ABC):
    """p(x | z), a module whose call on z returns the distribution.

    Args:
        latent_dim: the size L of z.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = check_positive_int("latent_dim", latent_dim)

    @abstractmethod
    def forward(self, z: Float[Tensor, "*batch latent"]) -> TorchDistributionMixin:
        """Return p(x | z), of batch shape (*batch,), for z of shape (*batch, L)."""


def network_of_latents(network: nn.Module, latent_dim: int | None) -> Batched:
    """Return a decoder's network with known shapes.

    Args:
        network: network of vectors z.
        latent_dim: size of z; None takes it from the network.

    Raises:
        TypeError: if the network is not a module.
        ValueError: if it takes other inputs, or the size is not known.
    """
    if latent_dim is not None:
        check_positive_int("latent_dim", latent_dim)
    found = measured(network, in_shape=None if latent_dim is None else (latent_dim,))
    if len(found.in_shape) != 1:
        raise ValueError(
            "the decoder's network must take a vector of latents, got in_shape "
            f"{found.in_shape}; build it with in_shape (latent_dim,)"
        )
    return found


def images(decoder: AbstractDecoder, z: Float[Tensor, "*batch latent"]) -> Float[Tensor, "..."]:
    """Return data to show for z, of shape (*batch, *data): the mean of p(x | z), or a sample.

    A sample is returned if the mean is not tractable, as for an ``AutoregressiveDecoder``. It uses
    torch's random generator, so that a seed makes it reproducible.

    Args:
        decoder: p(x | z).
        z: of shape (*batch, L).

    Example:
        >>> import torch
        >>> from pyro_dpvae.decoders import Decoder
        >>> from pyro_dpvae.likelihoods import GaussianLikelihood
        >>> decoder = Decoder(nn.Identity(), GaussianLikelihood((2,)), latent_dim=2)
        >>> images(decoder, torch.ones(3, 2)).shape
        torch.Size([3, 2])
    """
    p = decoder(z)
    try:
        return p.mean
    except NotImplementedError:
        return p.sample()


def shows(decoder: AbstractDecoder, z: Float[Tensor, "*batch latent"]) -> str:
    """Return what :func:`images` shows, ``"means"`` or ``"samples"``."""
    try:
        _ = decoder(z).mean
    except NotImplementedError:
        return "samples"
    return "means"


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
