"""The base class of penalties, and the representations of a batch, which they take."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pyro_dpvae._ranks import shared
from pyro_dpvae.distributions import map_draws
from pyro_dpvae.errors import TrainingWarning
from pyro_dpvae.objectives.penalties.marginals import coordinate_log_prob, flatten_event
from pyro_dpvae.objectives.schedules import WeightedModule

__all__ = ["AbstractPenalty", "LatentSite", "Latents"]


@dataclass(frozen=True)
class LatentSite:
    """One latent site of a batch.

    Attributes:
        name: name of the site.
        posterior: q(z | x), of batch shape (*particles, batch).
        prior: p(z), of the same batch shape.
        value: a sample z of q, of shape (*particles, batch, *event).
        log_posterior: log q(z | x) at the value, of shape (*particles, batch).
        log_prior: log p(z) at the value, of shape (*particles, batch).
    """

    name: str
    posterior: Any
    prior: Any
    value: Tensor
    log_posterior: Tensor
    log_prior: Tensor

    @property
    def points(self) -> Tensor:
        """The values for each q(z | x_j), of shape (batch i, *particles, batch j, *event)."""
        q = self.posterior
        plate = -1 - len(q.event_shape)

        def spread(z: Tensor) -> Tensor:
            # Expanded, since not all distributions of other libraries broadcast.
            points = z.movedim(plate, 0).unsqueeze(plate)
            return points.expand(-1, *q.batch_shape, *q.event_shape)

        return map_draws(spread, self.value)


@final
class Latents:
    """The representations of a batch: its latent sites, side by side as one vector z.

    Sites count as independent given x and under the prior: log q(z | x) and log p(z) are sums.

    With an objective ``across_ranks`` the batch is that of all ranks, and each site's posterior
    and prior are ``Gathered`` distributions, whose samples are equal on all ranks. Pass a
    penalty's other random numbers through :meth:`alike`.

    Args:
        sites: one or more sites with the same particles and batch.
        across_ranks: whether the batch is that of all ranks.
    """

    def __init__(self, sites: tuple[LatentSite, ...], *, across_ranks: bool = False) -> None:
        self.sites = sites
        self.across_ranks = across_ranks

    @cached_property
    def value(self) -> Tensor:
        """Samples z of q(z | x), of shape (*particles, batch, L)."""
        return torch.cat([flatten_event(site.value, site.posterior) for site in self.sites], -1)

    @property
    def size(self) -> int:
        """The number of data in the batch."""
        return self.value.shape[-2]

    @cached_property
    def log_posterior(self) -> Tensor:
        """Log q(z | x) of each datum at its z, of shape (*particles, batch)."""
        return torch.stack([site.log_posterior for site in self.sites]).sum(0)

    @cached_property
    def log_prior(self) -> Tensor:
        """Log p(z) at each z, of shape (*particles, batch)."""
        return torch.stack([site.log_prior for site in self.sites]).sum(0)

    def prior_sample(self) -> Tensor:
        """Return a sample of the prior for each datum, of shape (*particles, batch, L).

        Gradients reach the prior's parameters if its samples have gradients.
        """
        # A call, like pyro.sample: some distributions, such as Pyro's ZukoToPyro, have no rsample.
        return torch.cat([flatten_event(site.prior(), site.posterior) for site in self.sites], -1)

    def alike(self, noise: Tensor) -> Tensor:
        """Return rank zero's random numbers, which must have the same shape on all ranks."""
        return shared(noise) if self.across_ranks else noise

    def pairwise_log_posterior(self) -> Tensor:
        """Return log q(z_i | x_j), of shape (batch i, *particles, batch j)."""
        pairs = [site.posterior.log_prob(site.points) for site in self.sites]
        return torch.stack(pairs).sum(0)

    def pairwise_coordinate_log_posterior(self) -> Tensor:
        """Return log q(z_id | x_j) of each coordinate d, (batch i, *particles, batch j, L).

        Raises:
            TypeError: as :func:`coordinate_log_prob`.
        """
        return torch.cat(
            [coordinate_log_prob(site.posterior, site.points) for site in self.sites], -1
        )


class AbstractPenalty(WeightedModule, ABC):
    """Terms of the representations of a whole batch, such as their total correlation.

    The objective adds the sum of weight x term to the loss per datum, and logs each unweighted
    term. A weight has the name of its term; a term without weight is only logged.

    Example:
        A penalty on the mean square of z, for ``RegularizedELBO(penalties=[MeanSquare(0.5)])``:

        >>> class MeanSquare(AbstractPenalty):
        ...     def __init__(self, weight: float) -> None:
        ...         super().__init__(mean_square=weight)
        ...
        ...     def forward(self, latents: Latents) -> dict[str, Tensor]:
        ...         return {"mean_square": latents.value.square().sum(-1).mean()}
        >>> MeanSquare(0.5).settings
        {'mean_square': 0.5}
    """

    smallest_batch: ClassVar[int] = 1
    """The smallest batch size for which the terms are defined."""

    @abstractmethod
    def forward(self, latents: Latents) -> dict[str, Float[Tensor, ""]]:
        """Return the unweighted terms by name, per datum, in nats."""

    def learn(self, particles: Sequence[Latents]) -> None:
        """Compute gradients for the penalty's own networks, such as an adversary.

        It is called once in each training step, after the terms, and is captured with them;
        :meth:`update` takes the optimizer step.

        Args:
            particles: the representations of the step, one entry per sample of z.
        """

    def note_finite(self, finite: Bool[Tensor, ""]) -> None:
        """Store whether the loss is finite, for :meth:`update`, without synchronisation."""

    def update(self) -> None:
        """Take an optimizer step with the gradients from :meth:`learn`."""

    @final
    def check_learning(self) -> None:
        """Warn if the penalty has parameters and no method that trains them."""
        kind = type(self)
        if kind.learn is AbstractPenalty.learn and any(p.requires_grad for p in self.parameters()):
            warnings.warn(
                f"{kind.__name__} has parameters that nothing trains: SVI steps those of model "
                "and guide; override learn() and update(), or make them part of the model",
                category=TrainingWarning,
                stacklevel=3,
            )

    @final
    def checked(self, latents: Latents) -> dict[str, Tensor]:
        """Return the terms, which must be tensors by name, one at least for each weight.

        Raises:
            TypeError: if they are not.
        """
        terms: Any = self(latents)
        named = isinstance(terms, dict)
        if not named or not self._weights.keys() <= terms.keys():
            got = sorted(terms) if named else type(terms).__name__
            raise TypeError(
                f"{type(self).__name__} must return a dict with a term for each of its weights, "
                f"{sorted(self._weights)}, got {got}; return {{'name': term}}"
            )
        if wrong := [name for name, term in terms.items() if not isinstance(term, Tensor)]:
            raise TypeError(f"terms of {type(self).__name__} must be tensors, got others: {wrong}")
        return terms

    def weighted(self, terms: dict[str, Tensor]) -> Iterator[Tensor]:
        """Yield weight x term for each weight other than the number 0."""
        for name, weight in self._weights.items():
            if callable(weight) or weight != 0:
                yield self.weight(name) * terms[name]

    def check_size(self, size: int) -> None:
        """Raise for a batch size for which the terms are not defined.

        Raises:
            ValueError: if ``size`` is below ``smallest_batch``.
        """
        if size < self.smallest_batch:
            raise ValueError(
                f"the batch size for {type(self).__name__} must be at least "
                f"{self.smallest_batch}, got {size}; use larger batches, or leave out the last, "
                "smaller one"
            )
