"""Training: a loop of svi.step with progress, held-out evaluation, logs and checkpoints."""

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import pyro
import torch
from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # it exports it nevertheless
from tqdm import tqdm

from pyro_dpvae._checks import check_positive, check_positive_int
from pyro_dpvae.data import Batches
from pyro_dpvae.inference import CapturedSVI, FusedOptim, check_backend
from pyro_dpvae.nn.modes import in_evaluation
from pyro_dpvae.objectives import ELBO
from pyro_dpvae.runs import RunFolder, Stateful

__all__ = [
    "Growing",
    "History",
    "TrainConfig",
    "check_batch",
    "check_last_batch",
    "evaluate_elbo",
    "fit",
    "growth_steps",
]


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

    def __post_init__(self) -> None:
        for name in ("steps", "log_every", "evaluate_every", "growth_steps"):
            check_positive_int(name, getattr(self, name))
        check_positive("learning_rate", self.learning_rate)
        check_backend(self.backend)


@dataclass
class History:
    """What happened in a training run: its records, and whether it was interrupted."""

    records: list[dict[str, Any]] = field(default_factory=list)
    interrupted: bool = False

    @property
    def held_out(self) -> dict[str, float]:
        """The last terms on held-out data, per datum, in nats."""
        return next(r["held_out"] for r in reversed(self.records) if "held_out" in r)


def fit(
    model: nn.Module,
    guide: nn.Module,
    *,
    objective: ELBO,
    train: Batches,
    test: Batches,
    config: TrainConfig,
    run: RunFolder | None = None,
    state: dict[str, Any] | None = None,
    progress: bool = True,
) -> History:
    """Train a model and a guide with Adam, by ``CapturedSVI``.

    Before the first step the objective is evaluated on one batch with validation on, so that data
    which the parts cannot take are refused at once. An interrupt (Ctrl-C) ends training early,
    with everything written as at a regular end.

    A guide that grows, such as ``RecursiveMixtureGuide``, starts with the components that are
    active and ends with all; each number of components has an equal share of the steps. What a
    component is fitted with when it comes in are steps of their own, which count for nothing else.

    Args:
        model: p(x, z), a ``VAE`` or any Pyro model.
        guide: q(z | x).
        objective: the loss.
        train: the batches to train on; one pass after another, each in its own order.
        test: the held-out batches.
        config: steps, learning rate, seed, intervals.
        run: where records and checkpoints go; None keeps the records in memory only.
        state: entries for the checkpoint's state beside its step.
        progress: whether a bar is shown.

    Returns:
        The records: first ``{"step": 0, "objective": ...}``, the settings of the objective; then
        ``{"step", "loss", "distortion", "rate", ..., "seconds"}`` of training batches
        and ``{"step", "held_out": {"elbo", "distortion", "rate"}}``, all per datum, in nats;
        ``{"step", "backend", "recorded_seconds"}`` where a step was recorded;
        ``{"step", "components"}`` where the guide has grown, with how many are active.
        Losses in the held-out terms carry no weights.

    Raises:
        ValueError: if the parts and the data do not fit each other, the steps are fewer than the
            numbers of components they are shared among, or training diverges.

    Warns:
        UserWarning: if a schedule takes more steps than the run.
    """
    check_batch(model, guide, objective, next(train.epoch(0)))
    check_last_batch(objective, train, model, guide)
    growth = growth_steps(guide, config.steps)
    for name, steps in objective.unfinished(config.steps).items():
        warnings.warn(
            f"the schedule of {name} takes {steps} steps, and the run has {config.steps}: it ends "
            "before the schedule does; train longer or shorten the schedule",
            stacklevel=2,
        )
    pyro.set_rng_seed(config.seed)
    optim = FusedOptim({"lr": config.learning_rate})
    svi = CapturedSVI(model, guide, optim, objective, backend=config.backend)
    history = History()
    start = time.monotonic()
    step = 0

    def record(entry: dict[str, Any]) -> None:
        history.records.append(entry)
        if run is not None:
            run.log(entry)

    record({"step": 0, "objective": objective.settings})

    def conclude() -> dict[str, float]:
        held_out = evaluate_elbo(model, guide, test)
        record({"step": step, "held_out": held_out})
        if run is not None:
            parts: dict[str, Stateful] = {"model": model, "guide": guide, "objective": objective}
            run.save(parts, {**(state or {}), "step": step})
        return held_out

    def prepared() -> None:
        seconds = round(svi.recorded_seconds, 3)
        record({"step": step, "backend": config.backend, "recorded_seconds": seconds})
        bar.set_description(f"step recorded in {seconds:.1f} s")

    def grow() -> None:
        assert isinstance(guide, Growing)
        rate, steps = config.learning_rate, config.growth_steps
        guide.grow(model, train.epoch, steps=steps, learning_rate=rate, progress=progress)
        record({"step": step, "components": guide.active})
        bar.set_description(f"{guide.active} components")

    bar = tqdm(total=config.steps, disable=not progress, unit="step", dynamic_ncols=True)
    if config.backend == "inductor":
        bar.set_description("compiling the step")
    with bar, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Encountered NaN: loss")  # it is an error here
        try:
            for x in _passes(train.epoch):
                recordings = svi.recordings
                loss = svi.step(x)
                step += 1
                bar.update()
                if isinstance(loss, float) and not math.isfinite(loss):
                    raise ValueError(_diverged(step, f"the loss is {loss}"))
                if svi.recordings > recordings:
                    prepared()
                if step % config.log_every == 0 or step == config.steps:
                    terms = {name: float(term) for name, term in objective.terms.items()}
                    if not math.isfinite(terms["loss"]):  # a CUDA graph's losses come unread
                        raise ValueError(_diverged(step, f"the loss is {terms['loss']}"))
                    seconds = round(time.monotonic() - start, 3)
                    record({"step": step, **terms, "seconds": seconds})
                    bar.set_postfix({"loss": f"{terms['loss']:.2f}"}, refresh=False)
                if step == config.steps:
                    break
                if step in growth:
                    grow()
                if step % config.evaluate_every == 0:
                    bar.set_description(f"held-out ELBO {conclude()['elbo']:.2f}")
        except KeyboardInterrupt:
            history.interrupted = True
        except LinAlgError as error:
            raise ValueError(_diverged(step, "a precision matrix has no factor")) from error
        except ValueError as error:
            # The first batch has been taken, so a distribution out of bounds now has diverged;
            # torch's message of it is a page of numbers.
            if step == 0 or "satisfy the constraint" not in str(error):
                raise
            raise ValueError(_diverged(step, f"{str(error).split(' (')[0]} ...")) from error
        bar.set_description(f"held-out ELBO {conclude()['elbo']:.2f}")
    return history


def evaluate_elbo(
    model: nn.Module, guide: nn.Module, batches: Iterable[Tensor] | Batches, *, seed: int = 0
) -> dict[str, float]:
    """Return the evidence lower bound and its terms on held-out data, per datum, in nats.

    Modules are in evaluation mode meanwhile, and the random state of the process is kept.

    Args:
        model: p(x, z).
        guide: q(z | x).
        batches: the data; of ``Batches``, the first pass.
        seed: of the samples of z.

    Returns:
        ``elbo`` = -(distortion + rate), ``distortion``, ``rate``.
    """
    objective = ELBO()
    totals = {"distortion": 0.0, "rate": 0.0}
    count = 0
    with _aside(model, guide):
        torch.manual_seed(seed)
        for x in batches.epoch(0) if isinstance(batches, Batches) else batches:
            objective.loss(model, guide, x)
            count += len(x)
            for name in totals:
                totals[name] += float(objective.terms[name]) * len(x)
    terms = {name: total / count for name, total in totals.items()}
    return {"elbo": -sum(terms.values()), **terms}


def check_batch(model: nn.Module, guide: nn.Module, objective: ELBO, x: Tensor) -> None:
    """Refuse a batch that model, guide and likelihood cannot take, before training starts.

    A guide that grows is tried as it is and with all its components.

    Raises:
        ValueError: with the reason as the refusing part gave it.
    """
    bad = int((~x.isfinite()).sum())
    if bad:
        raise ValueError(
            f"data must be finite, got {bad} values of {x.numel()} that are NaN or infinite in "
            "the first batch; repair or leave out those data"
        )
    with _aside(model, guide), pyro.validation_enabled(True):
        try:
            objective.loss(model, guide, x)
            if isinstance(guide, Growing):
                with _grown(guide):
                    objective.loss(model, guide, x)
        except ValueError as error:
            cause: BaseException = error
            while cause.__cause__ is not None:  # Pyro wraps the reason in the trace's shapes
                cause = cause.__cause__
            raise ValueError(str(cause)) from error


def check_last_batch(objective: ELBO, train: Batches, *programs: nn.Module) -> None:
    """Refuse batches of which the last of a pass is too small for the objective's penalties.

    Or, with the model and the guide, for a batch norm of vectors, which has no variance of one.

    Raises:
        ValueError: with the sizes.
    """
    last = train.size % train.batch_size or train.batch_size
    if last < objective.smallest_batch:
        raise ValueError(
            f"the objective compares at least {objective.smallest_batch} data of a batch, and "
            f"batches of {train.batch_size} leave a last one of {last} of the {train.size}; "
            "choose another batch_size"
        )
    layers = (layer for program in programs for layer in program.modules())
    if last < 2 and any(isinstance(layer, nn.BatchNorm1d) for layer in layers):
        raise ValueError(
            "batch norm needs at least 2 data of a batch, and batches of "
            f"{train.batch_size} leave a last one of {last} of the {train.size}; "
            "choose another batch_size"
        )


def growth_steps(guide: nn.Module, steps: int) -> set[int]:
    """Return the steps of a run after which a guide grows, none for one that does not.

    Raises:
        ValueError: if the steps are fewer than the numbers of components they are shared among.
    """
    if not isinstance(guide, Growing):
        return set()
    shares = len(guide.components) - guide.active + 1
    if steps < shares:
        raise ValueError(
            f"each number of components must have a step, got {steps} steps for {shares} numbers, "
            f"from {guide.active} to {len(guide.components)}; train longer"
        )
    return {steps * share // shares for share in range(1, shares)}


def _diverged(step: int, how: str) -> str:
    return (
        f"training must stay finite, and after {step} steps it has diverged: {how}; lower the "
        "learning rate"
    )


@contextmanager
def _grown(guide: Growing) -> Iterator[None]:
    """All components of a guide in use, and as many as before at the end."""
    active = guide.active
    guide.active = len(guide.components)
    try:
        yield
    finally:
        guide.active = active


@contextmanager
def _aside(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode; modes and random state are as before at the end."""
    with torch.random.fork_rng(), in_evaluation(*modules):
        yield


def _passes(epoch: Callable[[int], Iterator[Tensor]]) -> Iterator[Tensor]:
    number = 0
    while True:
        yield from epoch(number)
        number += 1
