"""What every likelihood is: raw values of a decoder in, a distribution over data out."""

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

__all__ = ["AbstractLikelihood"]


class AbstractLikelihood(nn.Module, ABC):
    """A likelihood p(x | z) whose pixels are independent given the decoder's raw values.

    A subclass states its rule and remedy, and defines ``pixels``.

    Args:
        shape: of a datum, (C, H, W) or (D,).

    Raises:
        TypeError: if the class has no ``rule``.
        ValueError: if ``shape`` is empty or not positive; on call, if the raw values have
            another trailing shape than ``raw_shape``. The distribution's ``log_prob`` refuses
            data of another trailing shape than ``shape``, and, while validation is on, data
            that are not finite or lie outside the support.
    """

    values_per_pixel: ClassVar[int] = 1
    """How many raw values the decoder gives for each pixel."""
    rule: str
    """What data the likelihood takes, the first part of the error message."""
    remedy: str = "drop or repair these data"
    """What to do with other data, the last part of the error message."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        if not hasattr(self, "rule"):
            raise TypeError(
                "a likelihood must say which data it takes, the first part of its error message; "
                f"got {type(self).__name__} without it; give the class an attribute rule = '...'"
            )
        self.shape = check_shape("shape", shape)

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """The shape of a datum's raw values: ``shape`` with more channels."""
        return (self.values_per_pixel * self.shape[0], *self.shape[1:])

    def forward(self, raw: Float[Tensor, "..."]) -> TorchDistributionMixin:
        """Return p(x | raw), of event shape ``shape``, for raw of shape (*batch, *raw_shape)."""
        check_trailing_shape("raw values", raw.shape, self.raw_shape)
        pixels = self.pixels(raw)
        independent = len(self.shape) - len(pixels.event_shape)
        return _Datum(pixels, independent, rule=self.rule, remedy=self.remedy)

    @abstractmethod
    def pixels(self, raw: Float[Tensor, "..."]) -> TorchDistributionMixin:
        """Return the distribution of pixels, of batch shape (*batch, *shape).

        Where the channels of a pixel depend on each other, it is that of the whole datum, of
        batch shape (*batch,) and event shape ``shape``.
        """

    def start_at(self, data: Float[Tensor, "data ..."]) -> None:
        """Move parameters to where they suit data, (N, *shape), before training; here, none."""

    @final
    def at_pixel(self) -> "AbstractLikelihood":
        """Return the likelihood of a single pixel, of shape (C,), with the same parameters.

        Its raw values are those of the image at the pixel, of shape (*batch, R).
        """
        single = copy.copy(self)
        single.shape = self.shape[:1]
        return single

    def expansion(
        self, x: Float[Tensor, "..."], raw: Float[Tensor, "..."]
    ) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
        """Return the first derivative of log p(x | raw) in raw, and minus the second.

        Both are of each pixel, of shape (*batch, *shape); the second is of shape () where it is
        the same for all.

        Raises:
            TypeError: if log p(x | raw) is not smooth and concave in raw.
        """
        raise TypeError(
            "an expansion to second order needs a likelihood that is smooth and log-concave "
            f"in the raw values, pixel by pixel, got {type(self).__name__}; use a Gaussian of "
            "fixed or learned variance, a Bernoulli or a continuous Bernoulli"
        )

    @final
    def split(self, raw: Float[Tensor, "..."]) -> tuple[Tensor, ...]:
        """Return the ``values_per_pixel`` parts of raw, each of shape (*batch, *shape)."""
        return raw.chunk(self.values_per_pixel, dim=-len(self.shape))


@final
class _Datum(dist.Independent):
    """Independent pixels as one event, with errors for data that do not belong to it."""

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
        # Always: (B, 28, 28) would broadcast against (1, 28, 28), and mix up the data.
        check_trailing_shape("data", value.shape, self.event_shape)
        if self._validate_args:
            self._check_support(value)
        return super().log_prob(value)

    def _check_support(self, value: Tensor) -> None:
        finite = value.isfinite()
        if not finite.all():
            bad = int((~finite).sum())
            raise ValueError(
                f"{self.rule}, got NaN or infinity in {bad} of {value.numel()} places; "
                "drop or repair these data"
            )
        support = self.base_dist.support
        if isinstance(support, constraints.independent):
            support = support.base_constraint  # the place that is outside is to be named
        inside = support.check(value)
        if not inside.all():
            outside = value[~inside][0].item()
            least, most = value.min().item(), value.max().item()
            raise ValueError(
                f"{self.rule}, got {outside:.6g} among values in [{least:.4g}, {most:.4g}]; "
                f"{self.remedy}"
            )
