"""Flows of zuko as priors."""

from typing import Any, final

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from pyro_dpvae.nn import has_kinks
from pyro_dpvae.priors._base import AbstractPrior
from pyro_dpvae.priors.flow import FlowDistribution, FlowTransform

__all__ = ["ZukoPrior"]

_POINTS = 512  # whose round trip is checked
_LARGEST_ERROR = 0.01  # of a point's round trip, in standard deviations of the base


@final
class ZukoPrior(AbstractPrior):
    """z0 ~ N(m, diag s^2), z = g^-1(z0), with g the transform of a zuko flow.

    An unconditional flow over R^L with a normal base will do if it can be inverted over the whole
    of its base: ``zuko.flows.NSF(features=L)``, ``MAF``, ``NICE``, ``RealNVP``, and those put
    together with ``zuko.flows.Flow``. The constructor sends points z0 to z and back: the search
    by which ``GF`` is inverted ends at +-10, where a fresh one puts most draws, and it is
    refused. What a density and a draw cost is the flow's own: for
    autoregressive ones a draw takes L passes for each transform. The package does not import zuko,
    which ``pip install "pyro-dpvae[flows]"`` installs: of the flow it asks a call that returns a
    distribution with ``transform``, from z to z0, and ``base``.

    A Laplace guide differentiates g forwards, which transforms with derivatives of their own do
    not allow: it takes those above, and not ``NAF``, ``UNAF``, ``SOSPF``, ``BPF`` or ``CNF``.

    Args:
        flow: the flow, without a context.

    Raises:
        TypeError: if the flow has no map to a normal base, as a mixture has none.
        ValueError: if it is over something other than a vector, or z0 does not come back from z.

    References:
        Rozet et al. (2022), Zuko: Normalizing flows in PyTorch.

    Example:
        >>> import zuko
        >>> prior = ZukoPrior(zuko.flows.MAF(features=3, transforms=2))
        >>> prior.latent_dim, prior().sample((5,)).shape
        (3, torch.Size([5, 3]))
    """

    def __init__(self, flow: nn.Module) -> None:
        p: Any = flow()
        transform, base = getattr(p, "transform", None), getattr(p, "base", None)
        if (
            not hasattr(transform, "call_and_ladj")
            or not getattr(transform, "bijective", False)
            or not isinstance(base, Independent)
            or not isinstance(base.base_dist, Normal)
        ):
            raise TypeError(
                "a flow must map z to a normal base by a bijective transform, "
                f"got {type(p).__name__} with base {base}; use a flow such as zuko.flows.NSF, of "
                'the package zuko (pip install "pyro-dpvae[flows]"), or MixturePrior for a mixture'
            )
        if p.batch_shape != () or len(p.event_shape) != 1:
            raise ValueError(
                "a flow must be over one vector, without a batch, got batch shape "
                f"{tuple(p.batch_shape)} and event shape {tuple(p.event_shape)}; "
                "build it with features = latent_dim"
            )
        super().__init__(p.event_shape[0])
        self.flow = flow
        self._check_round_trip()

    def forward(self) -> FlowDistribution:
        """Return p(z), of batch shape () and event shape (L,)."""
        return FlowDistribution(self.base(), FlowTransform(self))

    @property
    def has_smooth_score(self) -> bool:
        """Whether the score is continuous, which it is not under a flow's usual ReLUs."""
        return not has_kinks(self.flow)

    def base(self) -> dist.Independent:
        """Return N(m, diag s^2), the flow's base, of batch shape () and event shape (L,)."""
        base = self.flow().base
        return dist.Normal(base.mean, base.stddev).to_event(1)

    def to_generation(
        self, z: Float[Tensor, "*batch latent"]
    ) -> tuple[Float[Tensor, "*batch latent"], Float[Tensor, "*batch"]]:
        """Return z0 = g(z) and log |det dg/dz|."""
        return self.flow().transform.call_and_ladj(z)

    def to_representation(
        self, z0: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return z = g^-1(z0)."""
        return self.flow().transform.inv(z0)

    def linearize_base(
        self, z0: Float[Tensor, "batch latent"]
    ) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, "batch latent latent"]]:
        """Return gradient and factor of log p0 at z0."""
        base = self.base()
        factor = torch.diag(1 / base.stddev).expand(len(z0), -1, -1)
        return (base.mean - z0) / base.variance, factor

    @torch.no_grad()
    def _check_round_trip(self) -> None:
        base = self.base()
        noise = torch.randn(_POINTS, self.latent_dim, generator=torch.Generator().manual_seed(0))
        z0 = base.mean + base.stddev * noise.to(base.mean)
        back = self.to_generation(self.to_representation(z0))[0]
        off = float(((back - z0) / base.stddev).abs().max())
        if not off < _LARGEST_ERROR:
            raise ValueError(
                "a flow must be invertible where its base has draws, got z0 -> z -> z0 off by "
                f"{off:.2g} standard deviations; use zuko.flows.NSF, MAF, NICE or RealNVP"
            )
