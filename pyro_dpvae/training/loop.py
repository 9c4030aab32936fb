"""Training: a loop of svi.step with progress, held-out evaluation, logs and checkpoints."""

import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyro
from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # it exports it nevertheless
from tqdm import tqdm

from pyro_dpvae.data import Batches
from pyro_dpvae.inference import CapturedSVI, FusedOptim
from pyro_dpvae.objectives import ELBO
from pyro_dpvae.runs import RunFolder, Stateful
from pyro_dpvae.training.checks import (
    check_batch,
    check_clusters,
    check_last_batch,
    growth_steps,
)
from pyro_dpvae.training.config import Clustering, Growing, TrainConfig
from pyro_dpvae.training.held_out import evaluate_elbo

__all__ = ["History", "fit"]


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
        ``{"step", "components"}`` where the guide has grown, with how many are active;
        ``{"step", "clusters"}`` where clusters have started from data.
        Losses in the held-out terms carry no weights.

    Raises:
        ValueError: if the parts and the data do not fit each other, the steps are fewer than the
            numbers of components they are shared among, clusters are to start from data in a guide
            without them or after the last step, or training diverges.

    Warns:
        UserWarning: if a schedule takes more steps than the run.
    """
    check_batch(model, guide, objective, next(train.epoch(0)))
    check_last_batch(objective, train, model, guide)
    growth = growth_steps(guide, config.steps)
    check_clusters(model, guide, config=config, train=train)
    for name, steps in objective.unfinished(config.steps).items():
        warnings.warn(
            f"the schedule of {name} takes {steps} steps, and the run has {config.steps}: the run "
            "ends before the schedule does; train longer or shorten the schedule",
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

    def start_clusters() -> None:
        assert isinstance(guide, Clustering)
        bar.set_description("placing clusters")
        guide.initialise_clusters(model.prior, train.epoch, seed=config.seed, progress=progress)
        record({"step": step, "clusters": "from data"})
        bar.set_description("clusters from data")

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
                if step == config.cluster_step:
                    start_clusters()
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


def _diverged(step: int, how: str) -> str:
    return (
        f"training must stay finite, and after {step} steps it has diverged: {how}; lower the "
        "learning rate"
    )


def _passes(epoch: Callable[[int], Iterator[Tensor]]) -> Iterator[Tensor]:
    number = 0
    while True:
        yield from epoch(number)
        number += 1
