"""What is refused before training starts."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pyro_dpvae._checks import check_kind
from pyro_dpvae._ranks import gather_objects, ranks
from pyro_dpvae.data import Batches, as_arguments
from pyro_dpvae.errors import CheckpointError, ConfigError, DataError, UnsupportedError
from pyro_dpvae.inference import synchronize
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.runs import Checkpoint
from pyro_dpvae.training.config import Clustering, Growing, TrainConfig
from pyro_dpvae.training.held_out import aside
from pyro_dpvae.training.place import Place
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
    """Refuse what a run cannot be made of.

    Raises:
        TypeError: with the argument, what it must be, and what it is.
    """
    for name, program in (("model", model), ("guide", guide)):
        check_kind(
            name,
            program,
            nn.Module,
            rule="a torch.nn.Module, whose parameters are saved; of a function make the forward "
            "method of a pyro.nn.PyroModule",
        )
    check_kind(
        "objective",
        objective,
        RegularizedELBO,
        rule="an objective of this library, such as BetaELBO(4.0); take steps with others by "
        "pyro.infer.SVI or inference.CapturedSVI in a loop of your own",
    )
    for name, batches in (("train", train), ("test", test)):
        check_kind(
            name,
            batches,
            (Batches, DataLoader),
            rule="data.Batches or a DataLoader; make Batches of a tensor or a data set",
        )


def check_run(
    model: nn.Module,
    guide: nn.Module,
    *,
    objective: RegularizedELBO,
    train: Batches,
    config: TrainConfig,
) -> set[int]:
    """Refuse a run whose parts, data and numbers do not fit each other, before it starts.

    The objective is evaluated on one batch for it.

    Returns:
        The steps after which the guide grows.

    Raises:
        ValueError: with the reason as the refusing part gave it.
    """
    check_batch(model, guide, objective, _first_batch(objective, train))
    check_last_batch(objective, train, model, guide)
    check_clusters(model, guide, config=config, train=train)
    return growth_steps(guide, config.steps)


def check_shares(train: Batches, test: Batches) -> None:
    """Refuse training batches that are not this rank's share, and held-out ones that are one.

    Raises:
        ValueError: with the shares.
    """
    here = ranks()
    if (train.rank, train.ranks) != (here.index, here.count):
        raise ValueError(
            "each rank trains on its own share of a batch, got that of rank "
            f"{train.rank} of {train.ranks} on rank {here.index} of {here.count}; give "
            f"Batches(..., rank={here.index}, ranks={here.count})"
        )
    if test.ranks > 1:
        raise ValueError(
            "held-out batches are shared as they are evaluated, got a share of "
            f"{test.ranks}; give Batches(...) without ranks"
        )


def _first_batch(objective: RegularizedELBO, train: Batches) -> Any:
    """Return a batch for :func:`check_batch`: this rank's share of the first.

    It is all of it where the objective compares more data of a batch than a share has.
    """
    enough = train.batch_size // train.ranks >= objective.smallest_batch
    return next((train if enough else train.whole()).epoch(0))


def check_batch(
    model: nn.Module, guide: nn.Module, objective: RegularizedELBO, batch: Any
) -> None:
    """Refuse a batch that model, guide and likelihood cannot take, before training starts.

    A batch that is a tuple has the arguments of model and guide. A guide that grows is tried as it
    is and with all its components.

    Raises:
        ValueError: with the reason as the refusing part gave it.
    """
    args = as_arguments(batch)
    bad, numbers = sum(int((~x.isfinite()).sum()) for x in args), sum(x.numel() for x in args)
    if bad:
        raise DataError(
            f"data must be finite, got {bad} values of {numbers} that are NaN or infinite in "
            "the first batch; repair or leave out those data"
        )
    with aside(model, guide), pyro.validation_enabled(True):
        try:
            objective.loss(model, guide, *args)
            if isinstance(guide, Growing):
                with _grown(guide):
                    objective.loss(model, guide, *args)
        except ValueError as error:
            cause: BaseException = error
            while cause.__cause__ is not None:  # Pyro wraps the reason in the trace's shapes
                cause = cause.__cause__
            raise ValueError(str(cause)) from error


def check_last_batch(objective: RegularizedELBO, train: Batches, *programs: nn.Module) -> None:
    """Refuse batches of which the last of a pass is too small for the objective's penalties.

    Or, with the model and the guide, for a batch norm of vectors, which has no variance of one.

    Raises:
        ValueError: with the sizes.
    """
    last = train.smallest
    if last < objective.smallest_batch:
        raise UnsupportedError(
            f"the objective compares at least {objective.smallest_batch} data of a batch, and "
            f"batches of {train.batch_size} leave a last one of {last} of the {train.size}; "
            "choose another batch_size"
        )
    layers = (layer for program in programs for layer in program.modules())
    own = last // train.ranks
    if own < 2 and any(isinstance(layer, nn.BatchNorm1d) for layer in layers):
        shared = f", of which each of {train.ranks} ranks has {own}" if train.ranks > 1 else ""
        raise UnsupportedError(
            "batch norm needs at least 2 data of a batch on every rank, and batches of "
            f"{train.batch_size} leave a last one of {last} of the {train.size}{shared}; "
            "choose another batch_size"
        )


def hold_together(model: nn.Module, guide: nn.Module, objective: RegularizedELBO) -> None:
    """Refuse ranks whose weights have come apart; all ranks must call it, before a checkpoint.

    Steps along averaged gradients keep weights equal to the last bit. Adversaries follow gradients
    that each rank computes of the same samples, which a GPU may add up in another order: where
    theirs differ, all take the first rank's, as they would from the checkpoint.

    Raises:
        ValueError: on all ranks, with those whose weights are not the first one's.
    """
    if ranks().count == 1:
        return
    weights = [*model.parameters(), *guide.parameters()]
    found = gather_objects((_digest(weights), _digest(objective.state_dict().values())))
    apart = [rank for rank, (own, _) in enumerate(found) if own != found[0][0]]
    if apart:
        raise ValueError(
            "weights must be the same on all ranks, got other ones than the first rank's on "
            f"rank {', '.join(map(str, apart))}; change weights on all ranks alike, as callbacks "
            "of the first rank alone must not, and go on from the last checkpoint"
        )
    if len(set(found)) > 1:
        synchronize(model, guide, objective)


def growth_steps(guide: nn.Module, steps: int) -> set[int]:
    """Return the steps of a run after which a guide grows, none for one that does not.

    Raises:
        ValueError: if the steps are fewer than the numbers of components they are shared among.
    """
    if not isinstance(guide, Growing):
        return set()
    shares = guide.num_components - guide.active + 1
    if steps < shares:
        raise ConfigError(
            f"each number of components must have a step, got {steps} steps for {shares} numbers, "
            f"from {guide.active} to {guide.num_components}; train longer"
        )
    return {steps * share // shares for share in range(1, shares)}


def check_clusters(
    model: nn.Module, guide: nn.Module, *, config: TrainConfig, train: Batches
) -> None:
    """Refuse a step at which clusters start from data, where they cannot.

    Raises:
        ValueError: if the guide has no clusters, the run ends before, or as the guide refuses.
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
            "cluster_step must lie before the last step, got "
            f"{config.cluster_step} of {config.steps} steps; train longer, or start clusters "
            "earlier"
        )
    guide.check_clusters(model.prior, train.size)


def check_resumed(
    checkpoint: Checkpoint, *, config: TrainConfig, objective: RegularizedELBO
) -> None:
    """Refuse a checkpoint that a run of a configuration and an objective cannot go on from.

    Raises:
        ValueError: if it has weights alone, is of other settings or of more steps than the run,
            or its guide grows after the run's end.
    """
    training = checkpoint.training()
    if "settings" not in training:
        raise CheckpointError(
            f"a run goes on from the state of its training, and {checkpoint.path} has weights "
            "alone; take one that training has written, or train another run"
        )
    check_settings(
        training["settings"], settings_of(config, objective), where=str(checkpoint.path)
    )
    place = Place(**training["place"])
    if config.steps < place.step:
        raise ConfigError(
            f"a run goes on from the steps that it has, got {config.steps} steps for one of "
            f"{place.step}; give more, or an earlier checkpoint"
        )
    if place.growth and place.growth[-1] >= config.steps:
        raise ConfigError(
            f"a guide grows at the steps that it started with, got {config.steps} steps for one "
            f"that still grows after {', '.join(map(str, place.growth))}; give more"
        )


@contextmanager
def _grown(guide: Growing) -> Iterator[None]:
    """All components of a guide in use, and as many as before at the end."""
    active = guide.active
    guide.active = guide.num_components
    try:
        yield
    finally:
        guide.active = active


def _digest(tensors: Iterable[Tensor]) -> str:
    """Return a number of all bytes of tensors."""
    found = hashlib.sha256()
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        found.update(flat.view(torch.uint8).numpy().data)
    return found.hexdigest()
