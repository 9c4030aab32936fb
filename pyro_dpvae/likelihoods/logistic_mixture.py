"""The discretised logistic mixture of PixelCNN++, for pixels with 256 levels, also in colour."""

from collections.abc import Sequence
from typing import Any, ClassVar, final

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import Categorical, constraints

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.distributions import expanded
from pyro_dpvae.likelihoods._base import AbstractLikelihood, Values
from pyro_dpvae.likelihoods.logistic import (
    LOG_SCALE_RANGE,
    Grid,
    draw_rounded,
    log_mass,
    rounded_mean,
)

__all__ = ["DiscretizedLogisticMixtureLikelihood"]


@final
class DiscretizedLogisticMixtureLikelihood(AbstractLikelihood):
    """Pixels on the grid {0, ..., 1} of some levels, each a rounded sample of a logistic mixture.

    The channels of a pixel share the component k, and are predicted one after another. With
    y = 2 x - 1 and log P the log mass of a bin as in :class:`DiscretizedLogisticLikelihood`,

        log p(x) = sum over pixels of  log sum_k pi_k prod_c P(x_c; mean_kc, scale_kc),
        mean_kc  = m_kc + sum_{d < c} a_kcd y_d.

    At each pixel the raw channels are, in this order: K logits of pi; K values m for each channel;
    K log scales for each channel, which are clamped to [-10, 10]; and K numbers whose tanh is a,
    for each pair (c, d), in the order (1, 0), (2, 0), (2, 1), ...  Means and scales are in the
    units of y. So there are 10 K raw channels for three channels and 3 K for one.

    The ``mean`` of the distribution is exact for one channel. With more, it is the exact mean of
    each channel given earlier channels at their means, within each component. This is nearly exact
    unless much of the mass lies at the ends of the grid.

    Args:
        shape: shape of an item, (C, H, W), or (C,) for a single pixel.
        components: number K of logistics.
        levels: number of levels of a channel; 256 for 8-bit data divided by 255.

    Raises:
        ValueError: if there is no component or only one level.

    References:
        Salimans, Karpathy, Chen, Kingma (2017), PixelCNN++, sections 2.1 and 2.2. The tanh is from
        the published code; the order of the raw values, the lower bound of the scale and the mean
        are ours.

    Example:
        >>> likelihood = DiscretizedLogisticMixtureLikelihood((3, 32, 32), components=5)
        >>> likelihood.raw_shape
        (50, 32, 32)
        >>> likelihood(torch.randn(4, 50, 32, 32)).sample().shape
        torch.Size([4, 3, 32, 32])
    """

    rule = "a logistic mixture likelihood takes pixels on the grid 0, 1/(levels - 1), ..., 1"
    remedy = (
        "divide 8-bit data by 255 without noise, resizing or standardisation after it, and keep "
        "levels=256 for them, or use the continuous Bernoulli or a Gaussian likelihood"
    )

    def __init__(self, shape: Sequence[int], *, components: int = 10, levels: int = 256) -> None:
        super().__init__(shape)
        self.components = check_positive_int("components", components)
        if check_positive_int("levels", levels) < 2:
            raise ValueError(f"levels must be at least 2, got {levels}; use 256 for 8-bit data")
        self.levels = levels

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """The shape of an item's raw values: ``shape`` with more channels."""
        return (self.components * sum(self._counts()), *self.shape[1:])

    def pixels(self, raw: Values) -> TorchDistributionMixin:
        """Return the distribution of an item; pixels are independent, channels are not."""
        parts = raw.movedim(-len(self.shape), -1).unflatten(-1, (-1, self.components))
        logits, means, log_scales, coefficients = parts.split(self._counts(), -2)
        scales = log_scales.clamp(*LOG_SCALE_RANGE).exp()
        return _Mixture(
            (logits.squeeze(-2), means, scales, coefficients.tanh()), self.shape, self.levels - 1
        )

    def _counts(self) -> list[int]:
        channels = self.shape[0]
        return [1, channels, channels, channels * (channels - 1) // 2]


@final
class _Mixture(dist.TorchDistribution):
    """The mixture over an item; its parameters have the channel in the second-to-last dimension.

    Args:
        parameters: logits, of shape (*batch, *space, K), and means, scales and coefficients, of
            shape (*batch, *space, channels or pairs, K).
        shape: shape of an item, (channels, *space).
        top: index of the last level.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, parameters: tuple[Tensor, ...], shape: tuple[int, ...], top: int) -> None:
        self.logits, self.means, self.scales, self.coefficients = parameters
        self.top = top
        batch = self.logits.shape[: self.logits.ndim - len(shape)]
        super().__init__(batch, torch.Size(shape))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "_Mixture":
        names = ("logits", "means", "scales", "coefficients")
        return expanded(self, batch_shape, _instance, names=names)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(Grid(self.top), len(self.event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        value = value.movedim(-len(self.event_shape), -1).unsqueeze(-1)
        of_components = self.logits.log_softmax(-1)
        for channel in range(self.event_shape[0]):
            loc, scale = self._given(channel, value)
            of_components = of_components + log_mass(value[..., channel, :], loc, scale, self.top)
        of_pixels = of_components.logsumexp(-1)
        space = tuple(range(1 - len(self.event_shape), 0))
        return of_pixels.sum(space) if space else of_pixels

    @property
    def mean(self) -> Tensor:
        found = torch.zeros_like(self.means)
        for channel in range(self.event_shape[0]):
            one = rounded_mean(*self._given(channel, found), self.top)
            found = torch.cat([found[..., :channel, :], one.unsqueeze(-2)], -2)
        mean = (found * self.logits.softmax(-1).unsqueeze(-2)).sum(-1)
        return mean.movedim(-1, -len(self.event_shape))

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        batch = self._extended_shape(sample_shape)[: -len(self.event_shape)]
        whole = self.expand(batch)
        component = Categorical(logits=whole.logits, validate_args=False).sample()
        chosen = whole._only(component)
        found = torch.zeros_like(chosen.means)
        for channel in range(self.event_shape[0]):
            found[..., channel, :] = draw_rounded(*chosen._given(channel, found), self.top)
        return found.squeeze(-1).movedim(-1, -len(self.event_shape))

    def _given(self, channel: int, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and scale of a channel, in the units of x, given the channels before."""
        first = channel * (channel - 1) // 2
        coefficients = self.coefficients[..., first : first + channel, :]
        before = 2 * value[..., :channel, :] - 1
        loc = self.means[..., channel, :] + (coefficients * before).sum(-2)
        return (loc + 1) / 2, self.scales[..., channel, :] / 2

    def _only(self, component: Tensor) -> "_Mixture":
        """Return the mixture with one component for each pixel."""
        index = component.unsqueeze(-1)

        def of(part: Tensor) -> Tensor:
            return part.gather(-1, index.unsqueeze(-1).expand(*part.shape[:-1], 1))

        parts = (self.means, self.scales, self.coefficients)
        logits = self.logits.gather(-1, index)
        return _Mixture((logits, *map(of, parts)), tuple(self.event_shape), self.top)
