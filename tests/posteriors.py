"""Guides whose q(z | x) is of each family: diagonal, full covariance, mixture, flow."""

from collections.abc import Callable

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_dpvae.distributions import DiagonalNormalMixture
from pyro_dpvae.guides import AbstractGuide, FlowGuide
from pyro_dpvae.priors import FlowDistribution, FlowTransform
from tests.linear_gaussian import DATA, LATENT

COMPONENTS = 3


class LinearGuide(AbstractGuide):
    """Parameters of q(z | x) are linear in x."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(DATA, size) for size in sizes)
        for head in self.heads:
            nn.init.normal_(head.weight, std=0.2)

    def parts(self, x: Tensor) -> list[Tensor]:
        return [head(x) for head in self.heads]


class Diagonal(LinearGuide):
    def __init__(self) -> None:
        super().__init__(LATENT, LATENT)

    def posterior(self, x: Tensor) -> dist.Independent:
        loc, raw = self.parts(x)
        return dist.Normal(loc, (raw - 0.5).exp()).to_event(1)


class Full(LinearGuide):
    def __init__(self) -> None:
        super().__init__(LATENT, LATENT, LATENT * LATENT)

    def posterior(self, x: Tensor) -> dist.MultivariateNormal:
        loc, raw, below = self.parts(x)
        factor = below.unflatten(-1, (LATENT, LATENT)).tril(-1)
        return dist.MultivariateNormal(
            loc, scale_tril=factor + torch.diag_embed((raw - 0.5).exp())
        )


class Mixture(LinearGuide):
    def __init__(self) -> None:
        super().__init__(COMPONENTS, COMPONENTS * LATENT, COMPONENTS * LATENT)

    def posterior(self, x: Tensor) -> DiagonalNormalMixture:
        logits, *others = self.parts(x)
        loc, raw = (part.unflatten(-1, (COMPONENTS, LATENT)) for part in others)
        return DiagonalNormalMixture(logits, loc, (raw - 0.5).exp())


def flow() -> FlowGuide:
    options = {"kind": "iaf", "context": 4, "blocks": 2, "hidden": (8,)}
    return FlowGuide(nn.Identity(), LATENT, in_shape=(DATA,), **options)


FAMILIES: dict[str, Callable[[], AbstractGuide]] = {
    "diagonal": Diagonal,
    "full": Full,
    "mixture": Mixture,
    "flow": flow,
}


def affine_flow(loc: Tensor, factor: Tensor) -> FlowDistribution:
    """The flow z = loc + A z0 of standard normals z0, which is distributed as N(loc, A A')."""
    base = dist.Normal(torch.zeros_like(loc), 1.0).to_event(1)
    return FlowDistribution(base, FlowTransform(Affine(loc, factor)))


class Affine:
    """z = loc + A z0, with A lower triangular."""

    def __init__(self, loc: Tensor, factor: Tensor) -> None:
        self.loc, self.factor = loc, factor

    def to_generation(self, z: Tensor) -> tuple[Tensor, Tensor]:
        away = (z - self.loc).unsqueeze(-1)
        z0 = torch.linalg.solve_triangular(self.factor, away, upper=False)
        log_det = -self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return z0.squeeze(-1), log_det.expand(z0.shape[:-2])

    def to_representation(self, z0: Tensor) -> Tensor:
        return self.loc + (self.factor @ z0.unsqueeze(-1)).squeeze(-1)
