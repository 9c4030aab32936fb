"""Mixture priors: normals in representation space, whose components are clusters."""

from abc import ABC, abstractmethod
from typing import Any, final

import pyro.distributions as dist
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pyro_dpvae._checks import check_positive, check_positive_int
from pyro_dpvae.distributions import DiagonalNormalMixture
from pyro_dpvae.priors._base import AbstractDirectPrior, LinearizedDensity, Points

__all__ = ["AbstractMixturePrior", "MixturePrior"]

# Scales from 5e-5 to 2e4, as for encoders, so that nothing overflows in float32.
_LOG_SCALE_RANGE = (-10.0, 10.0)


class AbstractMixturePrior(AbstractDirectPrior, ABC):
    """p(z) = sum_y p(y) N(z; mu_y, diag sigma_y^2), whose components are clusters.

    Generation space is representation space. Samples have gradients to all parameters, including
    the weights; see ``DiagonalNormalMixture``. The curvature of log p(z) is approximated by the
    mean of the components' precisions, weighted by responsibility.
    """

    def extra_repr(self) -> str:
        """Return the size of z and the number of components, for the ``repr``."""
        return f"{super().extra_repr()}, components={self.components}"

    @abstractmethod
    def forward(self) -> DiagonalNormalMixture:
        """Return p(z), of batch shape () and event shape (L,)."""

    def cluster_prior(self) -> Any:
        """Return p(y), a ``Categorical`` over the components."""
        return dist.Categorical(logits=self().logits)

    def conditional(self, y: Int[Tensor, "*clusters"]) -> dist.Independent:
        """Return N(mu_y, diag sigma_y^2), of the batch shape of y and event shape (L,)."""
        p = self()
        return dist.Normal(p.loc[y], p.scale[y]).to_event(1)

    def log_joint(self, z: Points) -> Float[Tensor, "*batch clusters"]:
        """Return log p(y) + log p(z | y) of every cluster y, in nats."""
        return _log_joint(self(), z)

    def linearize_density(self, z: Points) -> LinearizedDensity:
        """Return the gradient of log p(z) and a factor of its negative curvature, by point."""
        p = self()
        shares = _log_joint(p, z).softmax(-1).unsqueeze(-1)
        weighted = shares / p.scale.square()
        gradient = (weighted * (p.loc - z.unsqueeze(-2))).sum(-2)
        return LinearizedDensity(gradient, torch.diag_embed(weighted.sum(-2).sqrt()))


def _log_joint(p: DiagonalNormalMixture, z: Tensor) -> Tensor:
    return p.logits + dist.Normal(p.loc, p.scale).to_event(1).log_prob(z.unsqueeze(-2))


@final
class MixturePrior(AbstractMixturePrior):
    """p(z) = sum_y p(y) N(z; mu_y, diag sigma_y^2), with all parameters learned.

    Initial means are samples of N(0, spread^2 I). Each initial sigma is spread K^(-1/L), so that K
    balls of this radius have the volume of one ball of radius spread. Log sigma is clamped to
    [-10, 10].

    Args:
        latent_dim: size L of z.
        components: number K of components.
        uniform: keep p(y) uniform instead of learning it; clustering models often do, so that no
            cluster dies out.
        spread: standard deviation of the initial means.

    Raises:
        ValueError: if a size is below 1, or ``spread`` not positive.

    References:
        Jiang, Zheng, Tan, Tang, Zhou (2017), Variational deep embedding: the prior, with learned
        p(y). The initialisation is our choice.

    Example:
        >>> prior = MixturePrior(2, components=3)
        >>> prior.responsibilities(torch.zeros(5, 2)).shape
        torch.Size([5, 3])
        >>> prior.conditional(torch.tensor([0, 2])).batch_shape
        torch.Size([2])
    """

    logits: Tensor

    def __init__(
        self,
        latent_dim: int,
        *,
        components: int = 10,
        uniform: bool = False,
        spread: int | float = 1.0,
    ) -> None:
        super().__init__(latent_dim)
        self.components = check_positive_int("components", components)
        spread = check_positive("spread", spread)
        self.loc = nn.Parameter(spread * torch.randn(components, latent_dim))
        scale = torch.tensor(spread * components ** (-1 / latent_dim))
        self.log_scale = nn.Parameter(scale.log().repeat(components, latent_dim))
        if uniform or components == 1:
            self.register_buffer("logits", torch.zeros(components), persistent=False)
        else:
            self.logits = nn.Parameter(torch.zeros(components))

    def forward(self) -> DiagonalNormalMixture:
        """Return p(z), of batch shape () and event shape (L,)."""
        scale = self.log_scale.clamp(*_LOG_SCALE_RANGE).exp()
        return DiagonalNormalMixture(self.logits, self.loc, scale)
