"""What is refused before training starts."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
from torch import Tensor, nn

from pyro_dpvae.data import Batches
from pyro_dpvae.objectives import ELBO
from pyro_dpvae.training.config import Clustering, Growing, TrainConfig
from pyro_dpvae.training.held_out import aside

__all__ = ["check_batch", "check_clusters", "check_last_batch", "growth_steps"]


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
    with aside(model, guide), pyro.validation_enabled(True):
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
        raise ValueError(
            "cluster_step is of guides with clusters, such as a clustering ladder's, "
            f"got {config.cluster_step} and {type(guide).__name__}; leave it out (null)"
        )
    if config.cluster_step >= config.steps:
        raise ValueError(
            "cluster_step must lie before the last step, got "
            f"{config.cluster_step} of {config.steps} steps; train longer, or start clusters "
            "earlier"
        )
    guide.check_clusters(model.prior, train.size)


@contextmanager
def _grown(guide: Growing) -> Iterator[None]:
    """All components of a guide in use, and as many as before at the end."""
    active = guide.active
    guide.active = len(guide.components)
    try:
        yield
    finally:
        guide.active = active
