"""Checks before training starts or resumes."""

import hashlib
from collections.abc import Iterable
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pyro_dpvae._checks import check_kind
from pyro_dpvae._ranks import gather_objects, ranks
from pyro_dpvae.data import Batches, as_arguments
from pyro_dpvae.errors import CheckpointError, ConfigError, DataError, UnsupportedError
from pyro_dpvae.guides import AbstractGuide
from pyro_dpvae.inference import synchronize
from pyro_dpvae.models import AbstractVAE
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.runs import Checkpoint
from pyro_dpvae.training.config import Clustering, Growing, TrainConfig
from pyro_dpvae.training.held_out import aside
from pyro_dpvae.training.progress import Place
from pyro_dpvae.training.settings import check_settings, settings_of

__all__ = [
    "check_batch",
    "check_clusters",
    "check_kinds",
    "check_last_batch",
    "check_resumed",
    "check_run",
    "check_shares",
    "growth_steps",
    "hold_together",
]


def check_kinds(
    model: object, guide: object, *, objective: object, train: object, test: object
) -> None:
    """Raise if an argument of ``fit`` has the wrong type.

    Raises:
        TypeError: with the argument, the required type and the type given.
    """
    module = (
        "a torch.nn.Module, so that its parameters can be saved; turn a function into the forward "
        "method of a pyro.nn.PyroModule"
    )
    loss = (
        "an objective of this library, such as BetaELBO(4.0); use other losses with "
        "pyro.infer.SVI or inference.CapturedSVI in your own loop"
    )
    batches = "data.Batches or a DataLoader; make Batches of a tensor or a data set"
    check_kind("model", model, nn.Module, rule=module)
    check_kind("guide", guide, nn.Module, rule=module)
    check_kind("objective", objective, RegularizedELBO, rule=loss)
    check_kind("train", train, (Batches, DataLoader), rule=batches)
    check_kind("test", test, (Batches, DataLoader), rule=batches)


def check_run(
    model: nn.Module,
    guide: nn.Module,
    *,
    objective: RegularizedELBO,
    train: Batches,
    config: TrainConfig,
) -> set[int]:
    """Raise if model, guide, objective, data and configuration do not fit each other.

    Evaluates the objective on one batch.

    Returns:
        The steps after which the guide grows.

    Raises:
        ValueError: with the reason of the part that fails.
    """
    # This rank's shard of the first batch, or all of it if a shard is too small.
    enough = train.batch_size // train.ranks >= objective.smallest_batch
    first = next((train if enough else train.whole()).epoch(0))
    check_batch(model, guide, objective, first)
    check_last_batch(objective, train, model, guide)
    check_clusters(model, guide, config=config, train=train)
    return growth_steps(guide, config.steps)


def check_shares(train: Batches, test: Batches) -> None:
    """Raise unless training batches are this rank's shard and held-out batches are not sharded.

    Raises:
        ValueError: with the shards.
    """
    here = ranks()
    if (train.rank, train.ranks) != (here.index, here.count):
        raise ValueError(
            f"training batches belong to rank {train.rank} of {train.ranks}: each rank must "
            f"train on its own shard, and this is rank {here.index} of {here.count}; make "
            f"Batches(..., rank={here.index}, ranks={here.count})"
        )
    if test.ranks > 1:
        raise ValueError(
            "held-out batches must not be sharded (the evaluation shards them), got a shard of "
            f"{test.ranks}; make Batches(...) without ranks"
        )


def check_batch(
    model: nn.Module, guide: nn.Module, objective: RegularizedELBO, batch: Any
) -> None:
    """Raise if model, guide and likelihood cannot take a batch.

    A tuple holds the arguments of model and guide. A growing guide is checked with its active
    components and with all.

    Raises:
        ValueError: with the reason of the part that fails.
    """
    args = as_arguments(batch)
    bad, numbers = sum(int((~x.isfinite()).sum()) for x in args), sum(x.numel() for x in args)
    if bad:
        raise DataError(
            f"the first batch has {bad} NaN or infinite values of {numbers}: data must be "
            "finite; repair or remove those items"
        )
    if len(args) > 1:
        for program in (model, guide):
            if isinstance(program, AbstractVAE | AbstractGuide):
                raise DataError(
                    f"{type(program).__name__} takes x alone, got batches of {len(args)} tensors; "
                    "leave the labels out of the batches, or write a model and a guide that take "
                    "(x, y)"
                )
    with aside(model, guide), pyro.validation_enabled(True):
        try:
            objective.loss(model, guide, *args)
            if isinstance(guide, Growing):
                active, guide.active = guide.active, guide.num_components
                try:
                    objective.loss(model, guide, *args)
                finally:
                    guide.active = active
        except ValueError as error:
            cause: BaseException = error
            while cause.__cause__ is not None:  # Pyro wraps the error
                cause = cause.__cause__
            raise ValueError(str(cause)) from error


def check_last_batch(objective: RegularizedELBO, train: Batches, *programs: nn.Module) -> None:
    """Raise if the last batch of an epoch is too small for a penalty or for batch norm.

    Raises:
        ValueError: with the sizes.
    """
    last = train.smallest
    if last < objective.smallest_batch:
        raise UnsupportedError(
            "the last batch is too small: the objective needs at least "
            f"{objective.smallest_batch} items per batch, and batches of {train.batch_size} "
            f"leave {last} of the {train.size} items for the last one; choose another batch_size"
        )
    layers = (layer for program in programs for layer in program.modules())
    own = last // train.ranks
    if own < 2 and any(isinstance(layer, nn.BatchNorm1d) for layer in layers):
        shared = f", {own} on each of {train.ranks} ranks" if train.ranks > 1 else ""
        raise UnsupportedError(
            "the last batch is too small: batch norm needs at least 2 items on every rank, and "
            f"batches of {train.batch_size} leave {last} of the {train.size} items{shared}; "
            "choose another batch_size"
        )


def hold_together(model: nn.Module, guide: nn.Module, objective: RegularizedELBO) -> None:
    """Raise if ranks have different weights; all ranks must call it, before a checkpoint.

    Steps with averaged gradients keep the weights equal to the last bit. Each rank computes an
    adversary's gradients itself, and a GPU may sum them in another order. Where adversaries
    differ, all ranks take those of rank zero, as they would from the checkpoint.

    Raises:
        ValueError: on all ranks, with the ranks whose weights differ from rank zero's.
    """
    if ranks().count == 1:
        return
    weights = [*model.parameters(), *guide.parameters()]
    found = gather_objects((_digest(weights), _digest(objective.state_dict().values())))
    apart = [rank for rank, (own, _) in enumerate(found) if own != found[0][0]]
    if apart:
        raise ValueError(
            "weights differ between ranks: they must be equal, and those of rank "
            f"{', '.join(map(str, apart))} differ from rank zero's; change weights on all ranks "
            "alike (callbacks run on rank zero only), and resume from the last checkpoint"
        )
    if len(set(found)) > 1:
        synchronize(model, guide, objective)


def growth_steps(guide: nn.Module, steps: int) -> set[int]:
    """Return the steps after which a guide grows; an empty set for a guide that does not grow.

    Raises:
        ValueError: if the run has fewer steps than stages of growth.
    """
    if not isinstance(guide, Growing):
        return set()
    shares = guide.num_components - guide.active + 1
    if steps < shares:
        raise ConfigError(
            "too few steps: a growing guide needs at least one step per number of components, "
            f"got {steps} steps for {shares} numbers ({guide.active} to {guide.num_components}); "
            "use more steps"
        )
    return {steps * share // shares for share in range(1, shares)}


def check_clusters(
    model: nn.Module, guide: nn.Module, *, config: TrainConfig, train: Batches
) -> None:
    """Raise if ``cluster_step`` is set and clusters cannot be initialised from data then.

    Raises:
        ValueError: if the guide has no clusters, the run ends before that step, or the guide
            refuses.
    """
    if config.cluster_step is None:
        return
    if not isinstance(guide, Clustering):
        raise UnsupportedError(
            "cluster_step needs a guide with initialise_clusters, as every guide of this library "
            f"has it, got {config.cluster_step} and {type(guide).__name__}; leave it out (null)"
        )
    if config.cluster_step >= config.steps:
        raise ConfigError(
            f"cluster_step must be smaller than steps, got cluster_step={config.cluster_step} "
            f"and steps={config.steps}; use more steps or a smaller cluster_step"
        )
    guide.check_clusters(model.prior, train.size)


def check_resumed(
    checkpoint: Checkpoint, *, config: TrainConfig, objective: RegularizedELBO
) -> None:
    """Raise if a checkpoint cannot be resumed with a configuration and an objective.

    Raises:
        ValueError: if it has no training state, other settings, more steps than the run, or a
            guide that grows after the run's end.
    """
    training = checkpoint.training()
    if "settings" not in training:
        raise CheckpointError(
            f"{checkpoint.path} cannot be resumed: it has weights but no training state; use a "
            "checkpoint that training has written, or train a new run"
        )
    check_settings(
        training["settings"], settings_of(config, objective), where=str(checkpoint.path)
    )
    place = Place(**training["place"])
    if config.steps < place.step:
        raise ConfigError(
            f"too few steps: the checkpoint has {place.step} steps, got steps={config.steps}; "
            "use more steps, or resume from an earlier checkpoint"
        )
    if place.growth and place.growth[-1] >= config.steps:
        raise ConfigError(
            "too few steps: the guide of this checkpoint still grows after "
            f"{', '.join(map(str, place.growth))} steps, got steps={config.steps}; use more steps"
        )


def _digest(tensors: Iterable[Tensor]) -> str:
    """Return a hash of all bytes of tensors."""
    found = hashlib.sha256()
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        found.update(flat.view(torch.uint8).numpy().data)
    return found.hexdigest()
