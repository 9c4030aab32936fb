"""The base class of likelihoods, which map a decoder's raw values to a distribution of data."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, final

import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_dpvae._checks import check_shape, check_trailing_shape

__all__ = ["AbstractLikelihood", "Values"]

Values = Float[Tensor, "..."]
"""Data, raw values, or numbers computed from them."""


class AbstractLikelihood(nn.Module, ABC):
    """A likelihood p(x | z) whose pixels are independent given the decoder's raw values.

    A subclass sets ``rule`` and ``remedy``, and defines ``pixels``.

    Args:
        shape: shape of an item, (C, H, W) or (D,).

    Raises:
        TypeError: if the class has no ``rule``.
        ValueError: if ``shape`` is empty or not positive; on call, if the raw values do not end in
            ``raw_shape``. The distribution's ``log_prob`` raises for data that do not end in
            ``shape`` and, with validation on, for data that are not finite or outside the support.
    """

    values_per_pixel: ClassVar[int] = 1
    """The number of raw values for each pixel."""
    rule: str
    """The data that the likelihood accepts, the first part of the error message."""
    remedy: str = "drop or repair these data"
    """What to do with other data, the last part of the error message."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        if not hasattr(self, "rule"):
            raise TypeError(
                f"{type(self).__name__} has no rule: a likelihood must say which data it "
                "accepts; set the class attribute rule = '...'"
            )
        self.shape = check_shape("shape", shape)

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """The shape of an item's raw values: ``shape`` with more channels."""
        return (self.values_per_pixel * self.shape[0], *self.shape[1:])

    def forward(self, raw: Values) -> TorchDistributionMixin:
        """Return p(x | raw), of event shape ``shape``, for raw of shape (*batch, *raw_shape)."""
        check_trailing_shape("raw values", raw.shape, self.raw_shape)
        pixels = self.pixels(raw)
        independent = len(self.shape) - len(pixels.event_shape)
        return _Datum(pixels, independent, rule=self.rule, remedy=self.remedy)

    @abstractmethod
    def pixels(self, raw: Values) -> TorchDistributionMixin:
        """Return the distribution of pixels, of batch shape (*batch, *shape).

        If the channels of a pixel depend on each other, it is the distribution of the whole item,
        of batch shape (*batch,) and event shape ``shape``.
        """

    @final
    def check_support(self, x: Tensor) -> None:
        """Raise ValueError for data that are not finite, or that p(x | raw) cannot have."""
        p = self(torch.zeros(self.raw_shape, device=x.device))
        if isinstance(p, _Datum):
            p.check_support(x)

    def start_at(self, data: Float[Tensor, "data ..."]) -> None:
        """Initialise parameters from data, (N, *shape), before training; here there are none."""

    @final
    def at_pixel(self) -> "AbstractLikelihood":
        """Return the likelihood of a single pixel, of shape (C,), with the same parameters.

        Its raw values are those of the image at a pixel, of shape (*batch, R).
        """
        single = copy.copy(self)
        single.shape = self.shape[:1]
        return single

    def expansion(self, x: Values, raw: Values) -> tuple[Values, Values]:
        """Return the first derivative of log p(x | raw) in raw, and minus the second.

        Both are computed pixel by pixel, of shape (*batch, *shape); the second has shape () if it
        is the same everywhere.

        Raises:
            TypeError: if log p(x | raw) is not smooth and concave in raw.
        """
        raise TypeError(
            f"{type(self).__name__} cannot be expanded to second order: this needs a likelihood "
            "that is smooth and log-concave in the raw values, pixel by pixel; use a Gaussian "
            "with fixed or learned variance, a Bernoulli or a continuous Bernoulli"
        )

    @final
    def split(self, raw: Values) -> tuple[Tensor, ...]:
        """Return the ``values_per_pixel`` parts of raw, each of shape (*batch, *shape)."""
        return raw.chunk(self.values_per_pixel, dim=-len(self.shape))

    def _over_channels(self, values: Tensor) -> Tensor:
        """Return one value for each channel, shaped to broadcast over data."""
        return values.reshape(-1, *(1 for _ in self.shape[1:]))


@final
class _Datum(dist.Independent):
    """Independent pixels as one event, with clear errors for data outside the support."""

    def __init__(
        self, base: TorchDistributionMixin, event_dim: int, *, rule: str, remedy: str
    ) -> None:
        self.rule = rule
        self.remedy = remedy
        super().__init__(base, event_dim)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "_Datum":
        new = self._get_checked_instance(_Datum, _instance)
        new.rule = self.rule
        new.remedy = self.remedy
        return super().expand(torch.Size(batch_shape), _instance=new)

    def log_prob(self, value: Tensor) -> Tensor:
        # Always checked: (B, 28, 28) would broadcast against (1, 28, 28), and mix up the items.
        check_trailing_shape("data", value.shape, self.event_shape)
        if self._validate_args:
            self.check_support(value)
        return super().log_prob(value)

    def check_support(self, value: Tensor) -> None:
        finite = value.isfinite()
        if not finite.all():
            bad = int((~finite).sum())
            raise ValueError(
                f"{self.rule}, got NaN or infinity in {bad} of {value.numel()} places; "
                "drop or repair these data"
            )
        support = self.base_dist.support
        if isinstance(support, constraints.independent):
            support = support.base_constraint  # to name the element that is outside
        inside = support.check(value)
        if not inside.all():
            outside = value[~inside][0].item()
            least, most = value.min().item(), value.max().item()
            raise ValueError(
                f"{self.rule}, got {outside:.6g} among values in [{least:.4g}, {most:.4g}]; "
                f"{self.remedy}"
            )
