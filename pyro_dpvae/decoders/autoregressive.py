"""The autoregressive decoder, whose pixels depend on z and on earlier pixels, and its images."""

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any, ClassVar, final

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_dpvae._bars import bar as progress_bar
from pyro_dpvae._checks import check_trailing_shape
from pyro_dpvae.decoders.decoder import AbstractDecoder, network_of_latents
from pyro_dpvae.distributions import expanded
from pyro_dpvae.likelihoods import AbstractLikelihood
from pyro_dpvae.nn import AbstractPixelNetwork

__all__ = ["AutoregressiveDecoder", "AutoregressiveImage"]

_PATIENCE = 2.0  # seconds without a bar


@final
class AutoregressiveImage(dist.TorchDistribution):
    """p(x) = prod_i p(x_i | r_i), with r_i the network's raw values at pixel i, given x_{<i}.

    The density takes one pass through the network. Sampling takes H W small passes, pixel by pixel
    in raster order, without gradients, and shows a bar on terminals if it takes long. There is no
    ``rsample``.

    Args:
        network: (x, features) -> raw values.
        likelihood: likelihood of an image; restricted to a pixel, it is the distribution of pixel
            i.
        features: inputs of the network besides x, of shape (*batch, F, H, W).
        progress: show a bar on terminals while sampling takes long.

    Raises:
        ValueError: on ``log_prob``, for data of another shape or outside the likelihood's support.

    References:
        van den Oord, Kalchbrenner, Kavukcuoglu (2016), Pixel recurrent neural networks, equation
        1. Chen et al. (2017), Variational lossy autoencoder, section 3.1.

    Example:
        >>> from pyro_dpvae.likelihoods import BernoulliLikelihood
        >>> from pyro_dpvae.nn import MaskedPixelNetwork
        >>> network = MaskedPixelNetwork((1, 8, 8), 2, raw_shape=(1, 8, 8))
        >>> features = torch.zeros(5, 2, 8, 8)
        >>> p = AutoregressiveImage(network, BernoulliLikelihood((1, 8, 8)), features=features)
        >>> p.log_prob(p.sample((3,))).shape
        torch.Size([3, 5])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(
        self,
        network: AbstractPixelNetwork,
        likelihood: AbstractLikelihood,
        *,
        features: Float[Tensor, "*batch f h w"],
        progress: bool = True,
    ) -> None:
        self.network, self.likelihood = network, likelihood
        self.features, self.progress = features, progress
        super().__init__(features.shape[:-3], torch.Size(likelihood.shape))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "AutoregressiveImage":
        """Return the distribution with another batch shape and the same features."""
        # Features are not expanded: the density is computed once for equal features.
        return expanded(self, batch_shape, _instance)

    @property
    def support(self) -> constraints.Constraint:
        """The likelihood's support."""
        return self.likelihood(self.features.new_zeros(self.likelihood.raw_shape)).support

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(x) in nats, for x of shape (*sample, *batch, C, H, W)."""
        check_trailing_shape("data", value.shape, self.event_shape)
        if self._validate_args:  # before the network, whose outputs would be wrong
            self.likelihood.check_support(value)
        batch = torch.broadcast_shapes(value.shape[:-3], self.features.shape[:-3])
        seen = _folded(value.to(self.features.dtype), batch)
        raw = self.network(seen, _folded(self.features, batch))
        raw = raw.reshape(*batch, *self.likelihood.raw_shape)
        log_prob = self.likelihood(raw).log_prob(value)
        return log_prob.expand(torch.broadcast_shapes(batch, self.batch_shape))

    @property
    def mean(self) -> Tensor:
        """Not tractable."""
        raise NotImplementedError(
            "the mean of an autoregressive image is not tractable (a sum over all images); draw "
            "with sample(), or call decoders.images(decoder, z) for images to show"
        )

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples, of shape (*sample, *batch, C, H, W), one pixel after another."""
        shape = self._extended_shape(sample_shape)
        sampler = self.network.sampler(_folded(self.features, shape[:-3]))
        pixel = self.likelihood.at_pixel()
        places = list(product(range(shape[-2]), range(shape[-1])))
        bar = progress_bar(
            places,
            "drawing images",
            unit="pixel",
            delay=_PATIENCE,
            leave=False,
            disable=not self.progress,
        )
        drawn = []
        for row, column in bar:
            value = pixel(sampler.raw_at(row, column)).sample()
            sampler.put(row, column, value)
            drawn.append(value)
        return torch.stack(drawn, -1).reshape(shape)


def _folded(values: Tensor, batch: Sequence[int]) -> Tensor:
    """Expand values to (*batch, C, H, W) and fold them to (N, C, H, W)."""
    single = values.shape[-3:]
    return values.expand(*batch, *single).reshape(prod(batch), *single)


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
