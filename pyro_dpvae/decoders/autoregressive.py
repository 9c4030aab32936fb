"""The autoregressive decoder, whose pixels depend on z and on earlier pixels."""

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from pyro_dpvae.decoders._base import AbstractDecoder, network_of_latents
from pyro_dpvae.decoders.autoregressive_image import AutoregressiveImage
from pyro_dpvae.likelihoods import AbstractLikelihood
from pyro_dpvae.nn import AbstractPixelNetwork

__all__ = ["AutoregressiveDecoder"]


@final
class AutoregressiveDecoder(AbstractDecoder):
    """p(x | z) = prod_i p(x_i | x in a window before i, f(z)).

    The window is that of ``pixels``. z need not encode what the window shows, such as texture, but
    must encode everything else.

    p(x | z) has no tractable mean: :func:`images`, metrics and plots use a sample instead.
    Sampling takes one pass per pixel. Guides that expand log p(x | z) in raw values, such as the
    Laplace guide, do not support this decoder.

    Args:
        network: z -> features f(z), any module from (N, L) to (N, *pixels.feature_shape).
        pixels: (x, f(z)) -> raw values, each from earlier pixels.
        likelihood: raw values -> p(x_i | ...), with the shape ``pixels.image_shape``.
        latent_dim: size L of z; None takes it from the network, if its first layer is a
            ``torch.nn.Linear``.
        progress: show a bar on terminals while sampling takes long.

    Raises:
        TypeError: if the network is not a module.
        ValueError: if the network does not take a vector, or the parts do not fit.

    References:
        Chen et al. (2017), Variational lossy autoencoder, section 3.1.

    Example:
        >>> import torch
        >>> from pyro_dpvae.likelihoods import BernoulliLikelihood
        >>> from pyro_dpvae.nn import ARCHITECTURES, LocalPixelNetwork
        >>> likelihood = BernoulliLikelihood((1, 8, 8))
        >>> network = ARCHITECTURES["mlp"].decoder(2, (4, 8, 8))
        >>> pixels = LocalPixelNetwork((1, 8, 8), 4, raw_shape=likelihood.raw_shape)
        >>> p = AutoregressiveDecoder(network, pixels, likelihood=likelihood)(torch.zeros(3, 5, 2))
        >>> p.batch_shape, p.event_shape
        (torch.Size([3, 5]), torch.Size([1, 8, 8]))
    """

    def __init__(
        self,
        network: nn.Module,
        pixels: AbstractPixelNetwork,
        *,
        likelihood: AbstractLikelihood,
        latent_dim: int | None = None,
        progress: bool = True,
    ) -> None:
        found = network_of_latents(network, latent_dim)
        for rule, needed, got in (
            ("network must return pixels.feature_shape", pixels.feature_shape, found.out_shape),
            ("likelihood must be of pixels.image_shape", pixels.image_shape, likelihood.shape),
            ("pixels must return likelihood.raw_shape", likelihood.raw_shape, pixels.raw_shape),
        ):
            if needed != got:
                raise ValueError(f"the {rule}, {needed}, got {got}; build both for one shape")
        super().__init__(found.in_shape[0])
        self.network = found
        self.pixels = pixels
        self.likelihood = likelihood
        self.progress = progress

    def forward(self, z: Float[Tensor, "*batch latent"]) -> AutoregressiveImage:
        """Return p(x | z), of batch shape (*batch,), for z of shape (*batch, L)."""
        return AutoregressiveImage(
            self.pixels, self.likelihood, features=self.network(z), progress=self.progress
        )
