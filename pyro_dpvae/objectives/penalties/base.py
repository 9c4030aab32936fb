"""The base class of penalties: named terms of a batch's representations, and their weights."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from pyro_dpvae.objectives.penalties.latents import Latents
from pyro_dpvae.objectives.weights import WeightedModule

__all__ = ["AbstractPenalty"]


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
