"""Representations of a batch with Gaussian posteriors, as penalties see them."""

from typing import Any

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
