"""The law of an invertible map's output, as a distribution without a memory."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, final

import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import constraints

__all__ = ["Pushforward"]


@final
class Pushforward(TorchDistribution):
    """The law p(z) of z = g^-1(z0), where z0 follows a base distribution p0.

    With g invertible,

        log p(z) = log p0(g(z)) + log |det dg/dz|.

    Every call runs the maps anew, so that it answers for the parameters as they are then,
    whichever tensors it has seen before.

    Args:
        base: p0, of event shape (L,). Its batch shape is that of p; where g differs from element
            to element of it, the maps must broadcast as p0 does.
        to_generation: z -> (z0, log |det dg/dz|), of shapes (*batch, L) -> (*batch, L), (*batch).
        to_representation: z0 -> z = g^-1(z0), of shape (*batch, L).
        context: what g depends on in each element of the batch, of shape (*batch, C); the maps
            then take it as their second argument. A map that holds such tensors by itself is one
            that objectives cannot put together over ranks.

    Raises:
        ValueError: if ``base`` has another number of event dimensions than one. ``log_prob``
            refuses values of another event size, and, while validation is on, values that are
            NaN or whose shape does not broadcast with the batch shape.

    References:
        Dinh, Sohl-Dickstein, Bengio (2017), Density estimation using Real NVP, equation 2.

    Example:
        >>> import pyro.distributions as dist
        >>> p = Pushforward(
        ...     dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1),
        ...     to_generation=lambda z: (z - 3, torch.zeros(z.shape[:-1])),
        ...     to_representation=lambda z0: z0 + 3,
        ... )
        >>> p.log_prob(torch.tensor([3.0, 3.0]))
        tensor(-1.8379)
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}  # checked in the constructor
    support = constraints.real_vector

    def __init__(
        self,
        base: TorchDistributionMixin,
        *,
        to_generation: Callable[..., tuple[Tensor, Tensor]],
        to_representation: Callable[..., Tensor],
        context: Tensor | None = None,
    ) -> None:
        if len(base.event_shape) != 1:
            raise ValueError(
                "base must have one event dimension, got event shape "
                f"{tuple(base.event_shape)}; make it one with to_event"
            )
        self.base = base
        self._to_generation = to_generation
        self._to_representation = to_representation
        self.context = context
        super().__init__(base.batch_shape, base.event_shape)

    @property
    def has_rsample(self) -> bool:
        """Whether draws have gradients: where those of the base have."""
        return self.base.has_rsample

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(z), in nats."""
        # Always: a network of the map would complain of its own sizes.
        if value.shape[-1:] != self.event_shape:
            raise ValueError(
                f"z must have shape (..., {self.event_shape[0]}), got {tuple(value.shape)}; "
                "reshape it or build the prior for its size"
            )
        if self._validate_args:
            self._validate_sample(value)
        z0, log_det = self._to_generation(value, *self._given())
        return self.base.log_prob(z0) + log_det

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return draws with gradients to the map, of shape (*sample_shape, *batch_shape, L)."""
        return self._to_representation(self.base.rsample(torch.Size(sample_shape)), *self._given())

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return draws without gradients, of shape (*sample_shape, *batch_shape, L)."""
        with torch.no_grad():
            z0 = self.base.sample(torch.Size(sample_shape))
            return self._to_representation(z0, *self._given())

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "Pushforward":
        """Return p(z), independently for each element of ``batch_shape``."""
        new = self._get_checked_instance(Pushforward, _instance)
        new.base = self.base.expand(torch.Size(batch_shape))
        new._to_generation = self._to_generation
        new._to_representation = self._to_representation
        new.context = self.context
        super(Pushforward, new).__init__(
            new.base.batch_shape, self.event_shape, validate_args=self._validate_args
        )
        return new

    def rebuilt(self, base: TorchDistributionMixin, context: Tensor | None) -> "Pushforward":
        """Return what the same maps make of another base and, if they take one, context."""
        return Pushforward(
            base,
            to_generation=self._to_generation,
            to_representation=self._to_representation,
            context=context,
        )

    def _given(self) -> tuple[Tensor, ...]:
        return () if self.context is None else (self.context,)
