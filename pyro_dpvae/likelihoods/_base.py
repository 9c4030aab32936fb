"""What every likelihood is: a module from a network's output to a density over a whole datum."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self, final

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_dpvae._checks import check_shape

__all__ = ["AbstractLikelihood", "WholeDatum"]


class AbstractLikelihood(nn.Module, ABC):
    """A family of densities p(x | raw) over whole data, independent over pixels.

    Args:
        shape: of a datum, (channels, height, width) or (size,).
        values: how many raw values the network gives for each pixel.
    """

    def __init__(self, shape: Sequence[int], *, values: int) -> None:
        super().__init__()
        self.shape = check_shape("shape", shape)
        self.values = values

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """The shape that the network must put out: ``shape``, its first size times ``values``."""
        return (self.values * self.shape[0], *self.shape[1:])

    @abstractmethod
    def forward(self, raw: Float[Tensor, "..."]) -> dist.Independent:
        """Return p(x | raw), of event shape ``shape``, for raw of shape (*batch, *raw_shape)."""

    def _split(self, raw: Tensor) -> tuple[Tensor, ...]:
        return raw.chunk(self.values, dim=-len(self.shape))

    def _whole(self, pixels: dist.TorchDistribution, check: Callable[[Tensor], None]) -> Any:
        return WholeDatum(pixels, len(self.shape), check=check)


@final
class WholeDatum(dist.Independent):
    """A density over whole data that says what is wrong with data it does not take.

    The shape of a value is checked always, since a wrong one may broadcast and give a number;
    its support is checked where validation is on.

    Args:
        base: the density of the pixels.
        dims: how many of its dimensions make up a datum.
        check: refuses values outside the support, by a ValueError with the remedy.
    """

    def __init__(
        self,
        base: Any,
        dims: int,
        *,
        check: Callable[[Tensor], None],
        validate_args: bool | None = None,
    ) -> None:
        self.check = check
        super().__init__(base, dims, validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Self:
        """Return the density for a larger batch."""
        new = self._get_checked_instance(WholeDatum, _instance)
        new.check = self.check
        return super().expand(torch.Size(batch_shape), _instance=new)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(x), of shape batch, in nats.

        Raises:
            ValueError: for data of another shape, and with validation on, outside the support.
        """
        dims = len(self.event_shape)
        if value.dim() < dims or value.shape[-dims:] != self.event_shape:
            raise ValueError(
                f"data under this likelihood have shape (batch, "
                f"{', '.join(map(str, self.event_shape))}), got {tuple(value.shape)}; "
                "reshape the data or build the likelihood for their shape"
            )
        if self._validate_args:
            self.check(value)
        return super().log_prob(value)


def check_finite(family: str, value: Tensor) -> None:
    """Refuse data with NaN or infinite pixels."""
    bad = int((~value.isfinite()).sum())
    if bad:
        raise ValueError(
            f"{family} takes finite pixels, got {bad} of {value.numel()} that are NaN or "
            "infinite; repair or leave out those data"
        )


def describe(value: Tensor) -> str:
    """Return the range of data, for messages."""
    return f"values in [{float(value.min()):.4g}, {float(value.max()):.4g}]"
