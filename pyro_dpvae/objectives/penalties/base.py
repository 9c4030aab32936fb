"""What a penalty is: named terms on the representations of a batch, and their weights."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from pyro_dpvae.objectives.penalties.latents import Latents
from pyro_dpvae.objectives.weights import WeightedModule

__all__ = ["AbstractPenalty"]


class AbstractPenalty(WeightedModule, ABC):
    """Terms on the representations of a whole batch, such as their total correlation.

    The objective adds the sum of weight x term to the loss of each datum, and logs each term
    without its weight. A weight has the name of its term; a term without one is only logged.

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
    """How many data a batch must have for the terms to be defined."""

    @abstractmethod
    def forward(self, latents: Latents) -> dict[str, Float[Tensor, ""]]:
        """Return the terms by name, per datum, in nats, without weights."""

    def learn(self, particles: Sequence[Latents]) -> None:
        """Leave gradients on what the penalty owns, such as an adversary: once a step.

        It follows the terms, and is recorded with them where a step is recorded as one graph;
        optimizers step in :meth:`update`.

        Args:
            particles: the representations of the step, one for each sample of z drawn in a loop.
        """

    def note_finite(self, finite: Bool[Tensor, ""]) -> None:
        """Take down whether the loss of the step is finite, for :meth:`update`, without a wait."""

    def update(self) -> None:
        """Step what :meth:`learn` has left gradients on."""

    def weighted(self, terms: dict[str, Tensor]) -> Iterator[Tensor]:
        """Yield weight x term of the terms that have a weight other than the number 0."""
        for name, weight in self._weights.items():
            if callable(weight) or weight != 0:
                yield self.weight(name) * terms[name]

    def check_size(self, size: int) -> None:
        """Refuse a batch of a size for which the terms are not defined.

        Raises:
            ValueError: if ``size`` is below ``smallest_batch``.
        """
        if size < self.smallest_batch:
            raise ValueError(
                f"{type(self).__name__} compares the data of a batch and needs at least "
                f"{self.smallest_batch}, got {size}; use larger batches, or leave out the last, "
                "smaller one"
            )
