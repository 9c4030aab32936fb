"""Parts such as users write for themselves, named by dotted paths in tests."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from pyro_dpvae.guides import AbstractGuide, AmortizedGaussian
from pyro_dpvae.likelihoods import GaussianLikelihood
from pyro_dpvae.objectives import BetaELBO, RegularizedELBO
from pyro_dpvae.priors import AbstractPrior, CouplingPrior


class Tower(nn.Module):
    """An encoder and a decoder of plain layers."""

    def __init__(
        self, shape: Sequence[int], latent_dim: int, raw_shape: Sequence[int], *, width: int = 16
    ) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), width), nn.Tanh())
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, width),
            nn.Tanh(),
            nn.Linear(width, prod(raw_shape)),
            nn.Unflatten(1, tuple(raw_shape)),
        )


def untyped(  # type: ignore[no-untyped-def]
    shape: Sequence[int],
    latent_dim: int,
    raw_shape: Sequence[int],
    width,  # noqa: ANN001
) -> nn.Module:
    """Return a tower; the type of an option is missing."""
    return Tower(shape, latent_dim, raw_shape, width=width)


class Tied(nn.Module):
    """An encoder and a decoder that share a scale."""

    def __init__(self, shape: Sequence[int], latent_dim: int, raw_shape: Sequence[int]) -> None:
        super().__init__()
        shared = nn.Linear(2, 2)
        self.encoder = nn.Sequential(nn.Flatten(), shared)
        self.decoder = nn.Sequential(nn.Linear(latent_dim, 2), shared)


class Halfway(nn.Module):
    """An encoder without a decoder."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.encoder = nn.Flatten()


class Wide(nn.Module):
    """A decoder of another shape than the likelihood's."""

    def __init__(self, shape: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        self.encoder = nn.Flatten()
        self.decoder = nn.Linear(latent_dim, 7)


def few_couplings(latent_dim: int, *, pairs: int = 1) -> AbstractPrior:
    """Return a coupling prior of a few blocks."""
    return CouplingPrior(latent_dim, blocks=2 * pairs, hidden=[8])


def narrow(shape: Sequence[int], *, scale: float = 0.1) -> GaussianLikelihood:
    """Return a likelihood of a standard deviation."""
    return GaussianLikelihood(shape, variance=scale**2)


def plain_guide(encoder: nn.Module) -> AbstractGuide:
    """Return the usual guide."""
    return AmortizedGaussian(encoder)


def doubled(*, times: float = 2.0) -> RegularizedELBO:
    """Return a beta-ELBO."""
    return BetaELBO(times)


def unannotated(latent_dim):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    return CouplingPrior(latent_dim)


def of_tensor(x: Tensor) -> Tensor:
    """Return what is no part."""
    return torch.zeros_like(x)
