"""Rates: how an objective weights the divergence of q(z | x) from the prior."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_dpvae._checks import check_positive, check_positive_int
from pyro_dpvae.objectives.schedules import LinearSchedule, Weight, WeightedModule

__all__ = [
    "AbstractRate",
    "BetaRate",
    "CapacityRate",
    "FreeBitsRate",
    "SiteRate",
    "SoftFreeBitsRate",
]

# From here a hundred steps lead back to 1; without a floor, a long collapse would be permanent.
_LEAST_GAMMA = 1e-4


@dataclass(frozen=True)
class SiteRate:
    """The rate E_q[log q(z | x) - log p(z)] of one latent site, in nats.

    Attributes:
        name: name of the site.
        total: the rate of each datum, of shape (batch,).
        coordinates: the rate of each datum and coordinate of z, of shape (batch, L), if both q and
            p factorise and their divergence has a closed form; otherwise None.
    """

    name: str
    total: Tensor
    coordinates: Tensor | None


class AbstractRate(WeightedModule, ABC):
    """The weighted term of the loss that an objective computes from the rates of a batch."""

    needs_coordinates: bool = False
    """True if the rate of each coordinate of z is used, where it exists."""
    needs_batch: bool = True
    """True if the term is not a plain mean over the batch, so that averaging it over sub-batches
    is wrong."""

    @abstractmethod
    def forward(self, rates: list[SiteRate]) -> Float[Tensor, ""]:
        """Return the weighted term per datum, in nats, the mean over the batch."""


@final
class BetaRate(AbstractRate):
    """The rate times a weight: beta-VAE (Higgins et al., 2017, equation 4).

        beta KL(q(z | x) || p(z))

    Args:
        beta: the weight, 0 or more; 1 gives the evidence lower bound.

    Raises:
        ValueError: if ``beta`` is negative.

    Example:
        >>> rate = SiteRate("z", torch.tensor([0.5, 1.0]), None)
        >>> BetaRate(4.0)([rate])
        tensor(3.)
    """

    needs_batch = False

    def __init__(self, beta: Weight = 1.0) -> None:
        super().__init__(beta=beta)

    def forward(self, rates: list[SiteRate]) -> Float[Tensor, ""]:
        """Return beta times the rate."""
        return self.weight("beta") * _total(rates).mean()


@final
class CapacityRate(AbstractRate):
    """The distance of the rate from a growing capacity: annealed beta-VAE.

        gamma | E_x[KL(q(z | x) || p(z))] - C |,    C in nats per datum

    Args:
        gamma: the weight.
        capacity: C.
        per_sample: use the distance of each datum, E_x |KL - C|, instead of the batch mean's.

    Raises:
        ValueError: if a weight is negative.

    References:
        Burgess et al. (2018), Understanding disentangling in beta-VAE, equation 8.

    Example:
        >>> rate = SiteRate("z", torch.tensor([1.0, 4.0]), None)
        >>> CapacityRate(10.0, 2.0)([rate]), CapacityRate(10.0, 2.0, per_sample=True)([rate])
        (tensor(5.), tensor(15.))
    """

    options = ("per_sample",)

    def __init__(
        self,
        gamma: Weight = 1000.0,
        capacity: Weight = LinearSchedule(0.0, 25.0, 100_000),  # noqa: B008
        *,
        per_sample: bool = False,
    ) -> None:
        super().__init__(gamma=gamma, capacity=capacity)
        self.per_sample, self.needs_batch = per_sample, not per_sample

    def forward(self, rates: list[SiteRate]) -> Float[Tensor, ""]:
        """Return gamma times the distance."""
        total = _total(rates)
        distance = ((total if self.per_sample else total.mean()) - self.weight("capacity")).abs()
        return self.weight("gamma") * distance.mean()


@final
class FreeBitsRate(AbstractRate):
    """Free bits: rates below a threshold cost no more than the threshold.

        sum over groups j of  max(lambda, E_x[KL_j])

    A group is a latent site, or ``group_size`` neighbouring coordinates of one. KL_j of a group of
    coordinates exists only if q and p both factorise, so not with a coupling prior. Enumerated
    sites are groups too: y_l and z_l of a layer with clusters are two groups.

    Args:
        threshold: lambda, in nats per group.
        group_size: number of coordinates in a group; None makes each site a group.

    Raises:
        ValueError: if a weight is negative; on a step, if the rate does not split into
            coordinates, or these do not divide into groups.

    References:
        Kingma et al. (2016), Improved variational inference with inverse autoregressive flow,
        equation 15.

    Example:
        >>> rate = SiteRate("z", torch.tensor([0.5]), torch.tensor([[0.1, 0.4]]))
        >>> FreeBitsRate(0.2, group_size=1)([rate])
        tensor(0.6000)
    """

    options = ("group_size",)

    def __init__(self, threshold: Weight, *, group_size: int | None = None) -> None:
        super().__init__(threshold=threshold)
        self.group_size = (
            None if group_size is None else check_positive_int("group_size", group_size)
        )
        self.needs_coordinates = group_size is not None

    def forward(self, rates: list[SiteRate]) -> Float[Tensor, ""]:
        """Return the sum over groups of the larger of rate and threshold."""
        groups = torch.cat([self._groups(rate) for rate in rates])
        return groups.clamp(min=self.weight("threshold")).sum()

    def _groups(self, rate: SiteRate) -> Tensor:
        if self.group_size is None:
            return rate.total.mean().unsqueeze(0)
        if rate.coordinates is None:
            raise ValueError(
                f"the rate of {rate.name!r} does not split into coordinates, as free bits of "
                "groups of coordinates need: its prior or posterior does not factorise, model "
                "and guide differ in its scale or mask, or the guide samples its sites in "
                "another order than the model; use the model's order, or FreeBitsRate(..., "
                "group_size=None)"
            )
        size = rate.coordinates.shape[-1]
        if size % self.group_size:
            raise ValueError(
                f"group_size must divide the {size} coordinates of {rate.name!r}, "
                f"got {self.group_size}"
            )
        return rate.coordinates.mean(0).reshape(-1, self.group_size).sum(-1)


@final
class SoftFreeBitsRate(AbstractRate):
    """The rate times a weight that adapts to keep it slightly above a target: soft free bits.

        gamma E_x[KL],    1e-4 <= gamma <= 1

    After each training step gamma grows by a tenth if the rate exceeds the target by more than
    the tolerance, and shrinks by a tenth if the rate is below the target.

    Args:
        target: target of the rate, in nats per datum.
        tolerance: fraction of the target by which the rate may exceed it.

    Raises:
        ValueError: if the target is negative or the tolerance is not positive.

    References:
        Chen et al. (2017), Variational lossy autoencoder, appendix C.

    Example:
        >>> rate = SoftFreeBitsRate(10.0)
        >>> _ = rate([SiteRate("z", torch.tensor([2.0], requires_grad=True), None)])
        >>> rate.gamma
        tensor(0.9000)
    """

    options = ("tolerance",)
    gamma: Tensor

    def __init__(self, target: Weight, *, tolerance: float = 0.05) -> None:
        super().__init__(target=target)
        self.tolerance = check_positive("tolerance", tolerance)
        self.register_buffer("gamma", torch.ones(()))

    def forward(self, rates: list[SiteRate]) -> Float[Tensor, ""]:
        """Return gamma times the rate; under gradients, adapt gamma to the rate."""
        mean = _total(rates).mean()
        gamma = self.gamma.clone()  # saved for the gradient, so it must not change in place
        if torch.is_grad_enabled():
            target = self.weight("target")
            found = mean.detach()
            factor = torch.where(
                found > (1 + self.tolerance) * target, 1.1, torch.where(found < target, 0.9, 1.0)
            )
            self.gamma.mul_(factor).clamp_(_LEAST_GAMMA, 1.0)
        return gamma * mean


def _total(rates: list[SiteRate]) -> Tensor:
    return torch.stack([rate.total for rate in rates]).sum(0)
