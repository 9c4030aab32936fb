"""How long and how a pair is trained, and what guides have done to them on the way."""

from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from pyro_dpvae._checks import check_positive, check_positive_int
from pyro_dpvae.inference import check_backend

__all__ = ["Clustering", "Growing", "TrainConfig"]


@runtime_checkable
class Growing(Protocol):
    """A guide that :func:`fit` grows, such as ``RecursiveMixtureGuide``.

    Attributes:
        components: all that it may grow to.
        active: how many of them are in use.
    """

    components: Sized
    active: int

    def grow(
        self,
        model: Callable[..., Any],
        batches: Callable[[int], Iterable[Tensor]],
        /,
        *,
        steps: int,
        learning_rate: float,
        progress: bool,
    ) -> None:
        """Fit the next component to passes of batches, by their number, and take it into use."""


@runtime_checkable
class Clustering(Protocol):
    """A guide whose clusters :func:`fit` starts from data, such as ``ClusteringLadderGuide``."""

    def initialise_clusters(
        self,
        prior: Any,
        batches: Callable[[int], Iterable[Tensor]],
        /,
        *,
        seed: int,
        progress: bool,
    ) -> None:
        """Put the clusters of the model's prior where the data's representations have some."""

    def check_clusters(self, prior: Any, data: int, /) -> None:
        """Refuse a prior whose clusters cannot start from a number of data."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long and how a pair is trained.

    Args:
        steps: the number of steps.
        learning_rate: of Adam.
        seed: of Pyro, PyTorch, numpy and Python, set when training starts.
        log_every: the steps between records of the training loss.
        evaluate_every: the steps between evaluations on held-out data and checkpoints; both
            also happen after the last step.
        backend: how steps run, as ``CapturedSVI`` takes it.
        growth_steps: the steps, beside those of training, that fit each new component of a guide
            that grows.
        cluster_step: after how many steps the clusters of a guide that has some are put where
            the data's representations have clusters; None leaves them where training takes them.

    Raises:
        ValueError: if a count is below 1, the learning rate is not positive, or the backend does
            not exist or work here.
    """

    steps: int
    learning_rate: float = 1e-3
    seed: int = 0
    log_every: int = 50
    evaluate_every: int = 1000
    backend: str = "fx"
    growth_steps: int = 500
    cluster_step: int | None = None

    def __post_init__(self) -> None:
        if self.cluster_step is not None:
            check_positive_int("cluster_step", self.cluster_step)
        for name in ("steps", "log_every", "evaluate_every", "growth_steps"):
            check_positive_int(name, getattr(self, name))
        check_positive("learning_rate", self.learning_rate)
        check_backend(self.backend)
