"""Representations of a batch with Gaussian posteriors, as penalties see them."""

from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_dpvae.objectives import Latents, LatentSite


def site_of(
    posterior: Any, value: Tensor | None = None, *, prior: Any = None, name: str = "z"
) -> LatentSite:
    """A site with a given posterior; its prior is N(0, I), its value a draw, unless given."""
    value = posterior.rsample() if value is None else value
    if prior is None:
        zeros = torch.zeros(posterior.event_shape, dtype=value.dtype)
        prior = dist.Normal(zeros, 1.0).to_event(len(posterior.event_shape))
        prior = prior.expand(posterior.batch_shape)
    return LatentSite(
        name, posterior, prior, value, posterior.log_prob(value), prior.log_prob(value)
    )


def latents_of(
    loc: Tensor, scale: Tensor, value: Tensor | None = None, *, prior: Any = None
) -> Latents:
    """One site with q(z | x) = N(loc, diag scale^2), of (batch, L)."""
    return Latents((site_of(dist.Normal(loc, scale).to_event(1), value, prior=prior),))


class Sampler(dist.TorchDistribution):
    """Vectors whose draws have no gradients, and whose moments and marginals nobody knows."""

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, batch: int, latent_dim: int) -> None:
        super().__init__(torch.Size([batch]), torch.Size([latent_dim]))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return torch.randn(*sample_shape, *self.batch_shape, *self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        log_density = -0.5 * value.square().sum(-1)
        return log_density.expand(torch.broadcast_shapes(log_density.shape, self.batch_shape))
