"""How long and how a pair is trained, and what guides have done to them on the way."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from pyro_dpvae._checks import (
    check_choice,
    check_positive,
    check_positive_int,
    check_seed,
    hint_at_fields,
)
from pyro_dpvae.inference import AUTO, check_backend
from pyro_dpvae.objectives import Weight
from pyro_dpvae.training.average import check_decay
from pyro_dpvae.training.guard import POLICIES
from pyro_dpvae.training.progress import MONITORS

__all__ = ["OPTIMIZERS", "PRECISIONS", "Clustering", "Growing", "StepOptions", "TrainConfig"]

OPTIMIZERS = {"adam": torch.optim.Adam, "adamax": torch.optim.Adamax}
"""The optimizers of a training run (Kingma, Ba, 2015, algorithms 1 and 2)."""

PRECISIONS = ("float32", "bfloat16")
"""In what networks may run in training."""


@runtime_checkable
class Growing(Protocol):
    """A guide that :func:`fit` grows, such as ``RecursiveMixtureGuide``.

    Attributes:
        num_components: how many components it may grow to.
        active: how many of them are in use.
    """

    # No submodule here: from Python 3.12 on a protocol does not see what __getattr__ finds.
    num_components: int
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
    """A guide by which :func:`fit` starts a prior's clusters from data, as ``AbstractGuide``."""

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
class StepOptions:
    """The options of a training run that ``TrainConfig`` and ``RunConfig`` share.

    Args:
        optimizer: the optimizer, adam or adamax.
        warmup_steps: the number of steps in which the learning rate rises to its first value, in
            equal parts; None starts with that value.
        clip_norm: the largest norm of a step's gradient over all parameters; None does not clip.
        accumulate: the number of steps whose gradients are summed before an update. Steps,
            schedules and records go on counting batches.
        average_decay: the decay of an exponential moving average of the weights, such as 0.999,
            which is evaluated, and saved beside the weights; None keeps no average.
        nonfinite: what follows a step whose loss or gradient is not finite, and which changes
            nothing: stop ends the run with an error, skip goes on without the step.
        precision: the precision of the networks in training, float32 or bfloat16; densities are
            computed in float32 in any case.
        monitor: the quantity by which evaluations are compared: the held-out elbo, or the loss of
            the objective on held-out data.
        patience: the number of evaluations in a row without an improvement that ends training,
            counted after all schedules of the objective have ended; None trains all steps.
        seed: the random seed of weights, data order and noise (Pyro, PyTorch, numpy, Python).
        log_every: the number of steps between records of the training loss.
        evaluate_every: the number of steps between evaluations on held-out data, each with a
            checkpoint; both also follow the last step.
        checkpoint_every: the number of steps between further checkpoints; None writes no others.
        backend: how steps run: eager, fx (captured once and replayed), inductor (compiled as well,
            in up to a minute, with a C++ compiler), cudagraph (one launch of a GPU), or auto (fx
            for the library's own parts, eager for parts of your own).
        growth_steps: the number of further steps that fit each new component of a guide that
            grows.
        cluster_step: the step after which k-means puts the components of mixture priors at
            clusters of the data's representations; None never does.

    Raises:
        ValueError: if a count is below 1, a number is out of its range, there is no such choice,
            the backend does not work here, or gradients are to be accumulated within a CUDA graph.
    """

    optimizer: str = "adam"
    warmup_steps: int | None = None
    clip_norm: float | None = None
    accumulate: int = 1
    average_decay: float | None = None
    nonfinite: str = "stop"
    precision: str = "float32"
    monitor: str = "elbo"
    patience: int | None = None
    seed: int = 0
    log_every: int = 50
    evaluate_every: int = 1000
    checkpoint_every: int | None = None
    backend: str = AUTO
    growth_steps: int = 500
    cluster_step: int | None = None

    def __post_init__(self) -> None:
        for name in ("cluster_step", "checkpoint_every", "patience", "warmup_steps"):
            if getattr(self, name) is not None:
                check_positive_int(name, getattr(self, name))
        for name in ("log_every", "evaluate_every", "growth_steps", "accumulate"):
            check_positive_int(name, getattr(self, name))
        check_seed(self.seed)
        # As floats, which JSON takes; those of NumPy and torch are welcome.
        if self.clip_norm is not None:
            object.__setattr__(self, "clip_norm", check_positive("clip_norm", self.clip_norm))
        if self.average_decay is not None:
            object.__setattr__(self, "average_decay", check_decay(self.average_decay))
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("nonfinite", self.nonfinite, POLICIES)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("monitor", self.monitor, MONITORS)
        if self.backend != AUTO:
            check_backend(self.backend)
        if self.backend == "cudagraph" and self.optimizer != "adam":
            raise ValueError(
                "a CUDA graph needs an optimizer that has a fused kernel, got backend 'cudagraph' "
                f"and optimizer {self.optimizer!r}; use backend 'inductor', or optimizer 'adam'"
            )
        if self.backend == "cudagraph" and self.accumulate > 1:
            raise ValueError(
                "a CUDA graph is of steps that all update, got backend 'cudagraph' and "
                f"accumulate {self.accumulate}; use backend 'inductor', or larger batches"
            )


@hint_at_fields
@dataclass(frozen=True, kw_only=True)
class TrainConfig(StepOptions):
    """How long and how a model and its guide are trained.

    It has the options of ``StepOptions`` as well.

    Args:
        steps: the number of steps.
        learning_rate: the learning rate: a number, or a schedule or any function of the step,
            counted from 0.

    Raises:
        ValueError: as ``StepOptions`` does, or if gradients are accumulated over more steps than
            there are.
    """

    steps: int
    learning_rate: Weight = 1e-3

    def __post_init__(self) -> None:
        check_positive_int("steps", self.steps)
        super().__post_init__()
        if callable(self.learning_rate):
            for step in (0, self.steps - 1):
                self.learning_rate_at(step)
        else:
            rate = check_positive("learning_rate", self.learning_rate)
            object.__setattr__(self, "learning_rate", rate)
        if self.accumulate > self.steps:
            raise ValueError(
                f"an update sums the gradients of accumulate steps, got {self.accumulate} of "
                f"them and {self.steps} steps, in which there is none; accumulate fewer"
            )

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0.

        Raises:
            ValueError: if the schedule gives none that is 0 or more and finite.

        Example:
            >>> config = TrainConfig(steps=100, learning_rate=0.1, warmup_steps=4)
            >>> [config.learning_rate_at(step) for step in (0, 1, 3, 99)]
            [0.025, 0.05, 0.1, 0.1]
        """
        rate = self.learning_rate(step) if callable(self.learning_rate) else self.learning_rate
        if not 0 <= rate < math.inf:
            raise ValueError(
                f"a learning rate must be 0 or more and finite, got {rate} at step {step}; "
                "correct its schedule"
            )
        warm = 1.0 if self.warmup_steps is None else min(1.0, (step + 1) / self.warmup_steps)
        return float(warm * rate)

    @property
    def rate_moves(self) -> bool:
        """Whether the learning rate changes from step to step."""
        return callable(self.learning_rate) or self.warmup_steps is not None
