"""A model with bimodal posteriors: z ~ N(0, I) in two dimensions, x ~ N((|z_1|, z_2), 0.3^2 I)."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_dpvae.encoders import WeightedGaussianEncoder
from pyro_dpvae.guides import AbstractGuide, RecursiveMixtureGuide
from pyro_dpvae.nn.mlp import mlp_encoder

SIGMA = 0.3

_LINE = torch.linspace(-4.5, 4.5, 91)
_GRID = torch.cartesian_prod(_LINE, _LINE)
_CELL = float(_LINE[1] - _LINE[0]) ** 2


def decode(z: Tensor) -> Tensor:
    return torch.stack([z[..., 0].abs(), z[..., 1]], -1)


def model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(decode(z), SIGMA).to_event(1), obs=x)


def data(count: int) -> Tensor:
    return decode(torch.randn(count, 2)) + SIGMA * torch.randn(count, 2)


def mixture(components: int, *, active: int = 1, start: str = "trunk") -> RecursiveMixtureGuide:
    encoders = [
        WeightedGaussianEncoder(mlp_encoder((2,), hidden=(32, 32)), 2) for _ in range(components)
    ]
    return RecursiveMixtureGuide(encoders, active=active, start=start)


def divergence(guide: AbstractGuide, x: Tensor) -> float:
    """KL(q(z | x) || p(z | x)), averaged over data, by sums over a grid."""
    with torch.no_grad():
        prior = dist.Normal(torch.zeros(2), 1.0).to_event(1).log_prob(_GRID)
        likelihood = dist.Normal(decode(_GRID), SIGMA).to_event(1)
        log_p = prior[:, None] + torch.stack([likelihood.log_prob(one) for one in x], -1)
        log_p = log_p - log_p.logsumexp(0)
        log_q = guide.posterior(x).log_prob(_GRID[:, None].expand(-1, len(x), -1))
        log_q = log_q + torch.tensor(_CELL).log()
        total = log_q.exp().sum(0)
        torch.testing.assert_close(total, torch.ones_like(total), atol=5e-3, rtol=0)
        return float((log_q.exp() * (log_q - log_p)).sum(0).mean())
