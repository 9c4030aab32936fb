"""The function ``fit``: train a model and a guide, write records and checkpoints."""

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
from pyro_dpvae.training.progress import History
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
    """Train a model and a guide with Adam and ``CapturedSVI``.

    The objective is first evaluated on one batch with validation on, so that data outside a
    likelihood's support raise at once. Ctrl-C or SIGTERM ends training after the current step and
    writes everything as at a regular end. A second signal ends training at once and writes
    nothing.

    A growing guide, such as ``RecursiveMixtureGuide``, starts with its active components and ends
    with all; each number of components gets an equal share of the steps. The steps that fit a new
    component are extra and not counted.

    A resumed run continues bit for bit: build model, guide and objective as before, and ``fit``
    loads the checkpoint. Its records equal those of an uninterrupted run except for seconds. A run
    without a checkpoint starts anew. A resumed run may change the number of steps, learning rate,
    ``clip_norm``, ``nonfinite``, ``patience`` and intervals, and records the change. Other changed
    settings raise an error.

    With several ranks, as torchrun starts them, each rank trains on its own shard of a batch.
    Gradients are averaged, and penalties see the batch of all ranks. Only rank zero writes. A
    signal to any rank ends training on all ranks within the next eight steps; a second signal has
    no effect.

    Args:
        model: p(x, z), a ``VAE`` or any Pyro model.
        guide: q(z | x).
        objective: the loss.
        train: the batches to train on. A batch that is a tuple, such as data and labels, holds the
            arguments of model and guide. A DataLoader is shuffled anew from the seed, so that a
            resumed run repeats its order.
        test: the held-out batches.
        config: steps, learning rate, seed, intervals.
        run: the folder for records and checkpoints; None keeps records in memory only.
        state: further entries for the checkpoint's state.
        resume: True resumes from the run's last checkpoint, if there is one; a ``Checkpoint`` is
            the one to resume from. Later checkpoints are removed.
        callbacks: callbacks such as ``TensorBoard``. All are told of the end; an error that one
            raises there is raised afterwards, unless training failed.
        device: the device for model, guide, objective and batches: ``"auto"``, ``"cpu"``,
            ``"cuda"``, ``"cuda:1"`` ... ``"auto"`` keeps a model that is on an accelerator,
            otherwise uses CUDA if there is a GPU, else the CPU.
        progress: show a progress bar.

    Returns:
        The history. Its first record is ``{"step": 0, "objective": ..., "versions", "device"}``
        with the settings of the objective. Others are ``{"step", "loss", "distortion", "rate",
        ..., "seconds"}`` of training batches and ``{"step", "held_out": {"elbo", "distortion",
        "rate"}}``, all per datum, in nats; the held-out terms are not weighted. With
        ``clip_norm``, ``gradient_norm`` is the norm before clipping. There are also records
        ``{"step", "backend", "recorded_seconds"}`` after a capture of the training step,
        ``{"step", "components"}`` with the active components after the guide has grown,
        ``{"step", "clusters"}`` when clusters were initialised from data,
        ``{"step", "changed"}`` when a resumed run has other settings, versions or device, and
        ``{"step", "missing"}`` when earlier records are lost.

    Raises:
        TypeError: if an argument has the wrong type, such as a function for the model.
        ValueError: if parts and data do not fit each other; batches are not this rank's shard;
            there are fewer steps than stages of growth; ``cluster_step`` does not fit guide or
            steps; training diverges; or the checkpoint is damaged, of another run or of other
            settings.
        FileExistsError: if the run has checkpoints and ``resume`` is False.
        OSError: if the run folder cannot be written, or another process trains in it.

    Warns:
        UserWarning: if a schedule or the warm-up takes more steps than the run.
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
    lengths = objective.unfinished(config.steps)
    if config.warmup_steps is not None and config.warmup_steps > config.steps:
        lengths["the learning rate's warm-up"] = config.warmup_steps
    for name, steps in lengths.items():
        warnings.warn(
            f"the schedule of {name} takes {steps} steps, and the run has {config.steps}: the run "
            "ends before the schedule does; train longer or shorten the schedule",
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
        state=state or {},
        callbacks=callbacks,
        growth=growth,
    )
    with ExitStack() as stack:
        if run is not None:
            on_first_rank(lambda: stack.enter_context(run.locked()))
        trainer.start(resume)
        return trainer.train_all(progress=progress and ranks().index == 0)
