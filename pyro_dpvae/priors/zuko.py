"""Priors from flows of the package zuko."""

from typing import Any, final

import pyro.distributions as dist
import torch
from torch import nn
from torch.distributions import Independent, Normal

from pyro_dpvae.nn import has_kinks
from pyro_dpvae.priors._base import AbstractPrior, Matrices, Points, Values
from pyro_dpvae.priors.flow import FlowDistribution, FlowTransform

__all__ = ["ZukoPrior"]

_POINTS = 512  # number of points to check
_LARGEST_ERROR = 0.01  # in standard deviations of the base


@final
class ZukoPrior(AbstractPrior):
    """z0 ~ N(m, diag s^2), z = g^-1(z0), with g the transform of a zuko flow.

    The flow must be unconditional, over R^L, with a normal base, and invertible at its samples:
    for example ``zuko.flows.NSF(features=L)``, ``MAF``, ``NICE``, ``RealNVP``, and combinations by
    ``zuko.flows.Flow``. The constructor checks z0 -> z -> z0 for some points. ``GF`` fails, since
    its numerical inverse only searches [-10, 10]. Autoregressive flows take L passes per transform
    for a sample. The package itself does not import zuko; ``pip install "pyro-dpvae[flows]"``
    installs it.

    Laplace guides need forward-mode derivatives of g, which the flows above have, but not ``NAF``,
    ``UNAF``, ``SOSPF``, ``BPF`` and ``CNF``.

    Args:
        flow: the flow, without a context.

    Raises:
        TypeError: if the flow has no map to a normal base; mixtures have none.
        ValueError: if it is not over one vector, or not invertible at samples of its base.

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
                f"got {type(p).__name__} with base {base}; use a flow of "
                'zuko (pip install "pyro-dpvae[flows]"), or MixturePrior for a mixture'
            )
        if p.batch_shape != () or len(p.event_shape) != 1:
            raise ValueError(
                "a flow must be over one vector, without a batch, got batch shape "
                f"{tuple(p.batch_shape)} and event shape {tuple(p.event_shape)}; "
                "build it with features=latent_dim"
            )
        super().__init__(p.event_shape[0])
        self.flow = flow
        self._check_round_trip()

    def forward(self) -> FlowDistribution:
        """Return p(z), of batch shape () and event shape (L,)."""
        return FlowDistribution(self.base(), FlowTransform(self))

    @property
    def has_smooth_score(self) -> bool:
        """True if the score is continuous, so not with a flow's usual ReLUs."""
        return not has_kinks(self.flow)

    def base(self) -> dist.Independent:
        """Return N(m, diag s^2), the flow's base, of batch shape () and event shape (L,)."""
        base = self.flow().base
        return dist.Normal(base.mean, base.stddev).to_event(1)

    def to_generation(self, z: Points) -> tuple[Points, Values]:
        """Return z0 = g(z) and log |det dg/dz|."""
        return self.flow().transform.call_and_ladj(z)

    def to_representation(self, z0: Points) -> Points:
        """Return z = g^-1(z0)."""
        return self.flow().transform.inv(z0)

    def linearize_base(self, z0: Points) -> tuple[Points, Matrices]:
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
                "a flow must be invertible at samples of its base, got z0 -> z -> z0 off by "
                f"{off:.2g} standard deviations; use zuko.flows.NSF, MAF, NICE or RealNVP"
            )
