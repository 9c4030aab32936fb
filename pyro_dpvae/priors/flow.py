"""The distribution of a flow's output, and the autoregressive-flow prior."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast, final, runtime_checkable

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints
from torch.distributions.transforms import Transform

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.nn.flow_steps import AutoregressiveStep
from pyro_dpvae.priors._base import AbstractPrior, Points, Values

__all__ = ["AutoregressivePrior", "Flow", "FlowDistribution", "FlowTransform"]


@runtime_checkable
class Flow(Protocol):
    """An invertible map g from representation space to generation space, such as a prior.

    Both methods take the context as their second argument if the transform has one.
    """

    @property
    def to_generation(self) -> Callable[..., tuple[Tensor, Tensor]]:
        """The method z -> (z0, log |det dg/dz|): (*batch, L) -> (*batch, L), (*batch)."""

    @property
    def to_representation(self) -> Callable[..., Tensor]:
        """The method z0 -> z = g^-1(z0): (*batch, L) -> (*batch, L)."""


@final
class FlowTransform(Transform):
    """The transform z0 -> z = g^-1(z0) of torch and Pyro, from a flow g.

    It caches no values, so it always uses the flow's current parameters. Two transforms with the
    same flow and context are equal, so that ``kl_divergence`` of two distributions transformed by
    them is that of their bases.

    Args:
        flow: g, such as a prior.
        context: the context of g for each element of the batch, of shape (*batch, C).

    Example:
        >>> from pyro_dpvae.priors import CouplingPrior
        >>> transform = FlowTransform(CouplingPrior(2))
        >>> z0 = torch.ones(3, 2)
        >>> bool(torch.allclose(transform.inv(transform(z0)), z0, atol=1e-5))
        True
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, flow: Flow, *, context: Tensor | None = None) -> None:
        super().__init__()
        self.flow = flow
        self.context = context

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, FlowTransform)
            and self.flow is other.flow
            and self.context is other.context
        )

    def __hash__(self) -> int:
        return hash((id(self.flow), id(self.context)))

    def __repr__(self) -> str:
        return f"FlowTransform({type(self.flow).__name__})"

    def with_cache(self, cache_size: int = 1) -> "FlowTransform":
        """Return itself, since cached values would outlive an update of the parameters."""
        return self

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return log |det dz/dz0| at z0 = x and z = y."""
        return -self.inverse_and_log_det(y)[1]

    def inverse_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return z0 = g(z) and log |det dg/dz|, from one pass of g."""
        return self.flow.to_generation(z, *self._given())

    def _call(self, x: Tensor) -> Tensor:
        return self.flow.to_representation(x, *self._given())

    def _inverse(self, y: Tensor) -> Tensor:
        return self.inverse_and_log_det(y)[0]

    def _given(self) -> tuple[Tensor, ...]:
        return () if self.context is None else (self.context,)


@final
class FlowDistribution(dist.TransformedDistribution):
    """The distribution p(z) of z = g^-1(z0), where z0 follows a base distribution p0.

    With g invertible,

        log p(z) = log p0(g(z)) + log |det dg/dz|,

    and both terms come from one pass of g. Otherwise it is Pyro's ``TransformedDistribution``,
    with ``base_dist`` and ``transforms``, and works with all of Pyro's utilities for it.

    Args:
        base_dist: p0, of event shape (L,). Its batch shape is that of p; if g differs between
            elements of the batch, g must broadcast like p0.
        transform: z0 -> z.

    Raises:
        ValueError: if ``base_dist`` does not have one event dimension. ``log_prob`` raises for
            values of another event size and, with validation on, for values that are NaN or do not
            broadcast with the batch shape.

    References:
        Dinh, Sohl-Dickstein, Bengio (2017), Density estimation using Real NVP, equation 2.

    Example:
        >>> class Shift:
        ...     def to_generation(self, z):
        ...         return z - 3, torch.zeros(z.shape[:-1])
        ...     def to_representation(self, z0):
        ...         return z0 + 3
        >>> base = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
        >>> p = FlowDistribution(base, FlowTransform(Shift()))
        >>> p.log_prob(torch.tensor([3.0, 3.0]))
        tensor(-1.8379)
        >>> p
        FlowDistribution(Independent(Normal(loc: torch.Size([2]), scale: torch.Size([2])), 1), ...
    """

    support = constraints.real_vector

    def __init__(self, base_dist: TorchDistributionMixin, transform: FlowTransform) -> None:
        if len(base_dist.event_shape) != 1:
            raise ValueError(
                "base_dist must have one event dimension, got event shape "
                f"{tuple(base_dist.event_shape)}; make it one with to_event"
            )
        super().__init__(base_dist, [transform])

    def __repr__(self) -> str:
        return f"FlowDistribution({self.base_dist}, {self.transforms[0]})"

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(z), in nats."""
        # Always checked: otherwise a network of the flow would report its own sizes.
        if value.shape[-1:] != self.event_shape:
            raise ValueError(
                f"z must have shape (..., {self.event_shape[0]}), got {tuple(value.shape)}; "
                "reshape it or build the prior for its size"
            )
        if self._validate_args:
            self._validate_sample(value)
        z0, log_det = self.transforms[0].inverse_and_log_det(value)
        return self.base_dist.log_prob(z0) + log_det

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "FlowDistribution":
        """Return p(z), independently for each element of ``batch_shape``."""
        return super().expand(
            torch.Size(batch_shape), self._get_checked_instance(FlowDistribution, _instance)
        )


@final
class AutoregressivePrior(AbstractPrior):
    """The AF prior of a lossy VAE: z0 ~ N(0, I), z0 = g(z), with g a stack of masked networks.

    A block maps, in the direction from z to z0,

        z_i <- exp(a_i(z_<i)) z_i + t_i(z_<i),    log |det| = sum_i a_i(z_<i)

    with a and t from one masked perceptron (MADE); the order of coordinates is reversed from block
    to block. A density takes one parallel pass per block. A sample finds one coordinate after
    another, and computes each hidden unit once.

    By default a = 0, as in the paper: every determinant is one. The paper's blocks are MADEs of
    three layers with 640 ReLUs. We count the third layer as the output layer, hence two hidden
    layers of 640 by default; ``hidden=(640, 640, 640)`` is the other interpretation. ELUs instead
    of ReLUs, and the bounds (-2, 2) of a learned a, are our choice.

    Args:
        latent_dim: size L of z, at least 2.
        blocks: number of blocks.
        hidden: widths of the hidden layers of each block.
        mean_only: fix a = 0.
        direct: let coordinates also act linearly on later ones, past the hidden layers. The
            mutual-posterior autoencoder has direct connections and learns a.

    Raises:
        ValueError: if ``latent_dim`` is below 2, or another size is below 1.

    References:
        Chen et al. (2017), Variational lossy autoencoder, section 3.2: the prior, and its
        equivalence to an inverse autoregressive posterior. Papamakarios, Pavlakou, Murray (2017),
        Masked autoregressive flow, equations 3 to 5. Ma, Zhou, Hovy (2019), MAE: code.

    Example:
        >>> import torch
        >>> prior = AutoregressivePrior(3, blocks=2, hidden=(16,), mean_only=False)
        >>> z = prior().sample((5,))
        >>> bool(torch.allclose(prior.to_representation(prior.to_generation(z)[0]), z, atol=1e-5))
        True
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        blocks: int = 4,
        hidden: Sequence[int] = (640, 640),
        mean_only: bool = True,
        direct: bool = False,
    ) -> None:
        super().__init__(latent_dim)
        if latent_dim < 2:
            raise ValueError(
                "latent_dim must be at least 2 for an autoregressive prior, "
                f"got {latent_dim}; use StandardNormal({latent_dim})"
            )
        self.blocks = check_positive_int("blocks", blocks)
        self.steps = nn.ModuleList(
            AutoregressiveStep(
                latent_dim,
                context=0,
                hidden=hidden,
                backwards=block % 2 == 1,
                mean_only=mean_only,
                direct=direct,
            )
            for block in range(blocks)
        )

    def forward(self) -> FlowDistribution:
        """Return p(z), of batch shape () and event shape (L,)."""
        return FlowDistribution(self.base(), FlowTransform(self))

    def to_generation(self, z: Points) -> tuple[Points, Values]:
        """Return z0 = g(z), in one pass for each block, and log |det dg/dz|."""
        log_det = z.new_zeros(z.shape[:-1])
        for step in self._steps():
            z, stretch = step(z, None)
            log_det = log_det + stretch
        return z, log_det

    def to_representation(self, z0: Points) -> Points:
        """Return z = g^-1(z0), one coordinate after another."""
        for step in reversed(self._steps()):
            z0 = step.inverse(z0, None)[0]
        return z0

    def extra_repr(self) -> str:
        """Return the size of z and the number of blocks, for the ``repr``."""
        return f"{super().extra_repr()}, blocks={self.blocks}"

    def _steps(self) -> list[AutoregressiveStep]:
        return [cast(AutoregressiveStep, step) for step in self.steps]
