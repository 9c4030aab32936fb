"""The door to training: a model and a guide, with records, evaluation and checkpoints."""

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from pyro_dpvae._devices import choose_device, device_of
from pyro_dpvae._ranks import on_first_rank, ranks, refusing_together
from pyro_dpvae.data import Batches, batches_of
from pyro_dpvae.errors import TrainingWarning
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.runs import Checkpoint, RunFolder
from pyro_dpvae.training.callbacks import AbstractCallback
from pyro_dpvae.training.checks import check_kinds, check_run, check_shares
from pyro_dpvae.training.config import TrainConfig
from pyro_dpvae.training.history import History
from pyro_dpvae.training.trainer import Trainer

__all__ = ["fit"]


def fit(
    model: nn.Module,
    guide: nn.Module,
    *,
    objective: RegularizedELBO,
    train: Batches | DataLoader[Any],
    test: Batches | DataLoader[Any],
    config: TrainConfig,
    run: RunFolder | None = None,
    state: dict[str, Any] | None = None,
    resume: bool | Checkpoint = False,
    callbacks: Sequence[AbstractCallback] = (),
    device: str | torch.device = "auto",
    progress: bool = True,
) -> History:
    """Train a model and a guide with Adam, by ``CapturedSVI``.

    Before the first step the objective is evaluated on one batch with validation on, so that data
    which the parts cannot take are refused at once. An interrupt (Ctrl-C) or SIGTERM ends training
    after the present step, with everything written as at a regular end; a second one ends it at
    once, with nothing more written.

    A guide that grows, such as ``RecursiveMixtureGuide``, starts with the components that are
    active and ends with all; each number of components has an equal share of the steps. What a
    component is fitted with when it comes in are steps of their own, which count for nothing else.

    A resumed run goes on bit for bit as it would have done: model, guide and objective are built
    as they were, and take on the checkpoint. Its records are those of an uninterrupted run, except
    for seconds. A run without a checkpoint starts over. It may go on with more steps,
    another learning rate, ``clip_norm``, policy about what is not finite, patience or other
    intervals: what has changed is recorded. Other settings are refused by name.

    In a process group of several ranks, as torchrun starts them, each rank trains on its own
    batches; gradients and penalties are those of all. Only the first rank writes. A signal to any
    of them ends training on all, after the same one of the next eight steps; there is no end at
    once.

    Args:
        model: p(x, z), a ``VAE`` or any Pyro model.
        guide: q(z | x).
        objective: the loss.
        train: the batches to train on; one pass after another, each in its own order. Batches
            that are tuples, such as data and labels, are the arguments of model and guide. Of a
            DataLoader the order is drawn anew from the seed, so that a resumed run knows it.
        test: the held-out batches.
        config: steps, learning rate, seed, intervals.
        run: where records and checkpoints go; None keeps the records in memory only.
        state: entries for the checkpoint's state beside its step.
        resume: whether to go on from the last checkpoint of the run, if it has any; or from which
            one. Later checkpoints are removed.
        callbacks: what is called as the run goes on, such as ``TensorBoard``. All hear of the
            end; an error that one of them raises there comes after, unless training has failed.
        device: where model, guide, objective and batches are moved before the first step, and
            stay: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` ... The first is where the model
            is if it is on an accelerator; otherwise CUDA if there is a GPU, else the CPU.
        progress: whether a bar is shown.

    Returns:
        The records: first ``{"step": 0, "objective": ..., "versions", "device"}``, with the
        settings of the objective; then
        ``{"step", "loss", "distortion", "rate", ..., "seconds"}`` of training batches
        and ``{"step", "held_out": {"elbo", "distortion", "rate"}}``, all per datum, in nats;
        where gradients are clipped, ``gradient_norm`` beside the loss, as it was before;
        ``{"step", "backend", "recorded_seconds"}`` where a step was recorded;
        ``{"step", "components"}`` where the guide has grown, with how many are active;
        ``{"step", "clusters"}`` where clusters have started from data;
        ``{"step", "changed"}`` where a resumed run has other settings, versions or device, and
        ``{"step", "missing"}`` where records before it are lost.
        Losses in the held-out terms carry no weights.

    Raises:
        TypeError: if an argument is of another kind, such as a function for the model.
        ValueError: if the parts and the data do not fit each other, the batches are not those of
            this rank, the steps are fewer than the
            numbers of components they are shared among, clusters are to start from data in a guide
            without them or after the last step, training diverges, or the checkpoint is damaged,
            of another run or of other settings.
        FileExistsError: if the run has checkpoints, and is not to be resumed.
        OSError: if the run folder cannot be written, or another process trains in it.

    Warns:
        UserWarning: if a schedule, or the warm-up, takes more steps than the run.
    """
    check_kinds(model, guide, objective=objective, train=train, test=test)
    if isinstance(train, DataLoader):
        here = ranks()
        train = batches_of(train, seed=config.seed, rank=here.index, ranks=here.count)
    if isinstance(test, DataLoader):
        test = batches_of(test, seed=config.seed)
    with refusing_together():
        there = choose_device(device, present=device_of(model))
        for part in (model, guide):
            part.to(there)
        objective.to(there)
        train, test = train.to(there), test.to(there)
        check_shares(train, test)
        growth = check_run(model, guide, objective=objective, train=train, config=config)
    for name, steps in objective.unfinished(config.steps).items():
        warnings.warn(
            f"the schedule of {name} takes {steps} steps, and the run has {config.steps}: the run "
            "ends before the schedule does; train longer or shorten the schedule",
            category=TrainingWarning,
            stacklevel=2,
        )
    if config.warmup_steps is not None and config.warmup_steps > config.steps:
        warnings.warn(
            f"the learning rate takes {config.warmup_steps} steps to warm up, and the run has "
            f"{config.steps}: it ends before; train longer or warm up in fewer",
            category=TrainingWarning,
            stacklevel=2,
        )
    trainer = Trainer(
        model,
        guide,
        objective=objective,
        train=train,
        test=test,
        config=config,
        run=run,
        callbacks=callbacks,
    )
    trainer.place.growth = sorted(growth)
    with ExitStack() as stack:
        if run is not None:
            on_first_rank(lambda: stack.enter_context(run.locked()))
        trainer.start(resume, state=state or {})
        return trainer.train_all(progress=progress and ranks().index == 0)
