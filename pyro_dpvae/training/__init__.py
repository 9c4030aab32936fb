"""Training: fit a model and a guide with ``CapturedSVI``, write records and checkpoints."""

from pyro_dpvae._devices import choose_device
from pyro_dpvae.training.callbacks import AbstractCallback, Context, TensorBoard
from pyro_dpvae.training.checks import (
    check_batch,
    check_clusters,
    check_last_batch,
    check_resumed,
    check_run,
    growth_steps,
)
from pyro_dpvae.training.config import Clustering, Growing, StepOptions, TrainConfig
from pyro_dpvae.training.fitting import fit
from pyro_dpvae.training.guard import NonFiniteError
from pyro_dpvae.training.held_out import evaluate_elbo
from pyro_dpvae.training.progress import History

__all__ = [
    "AbstractCallback",
    "Clustering",
    "Context",
    "Growing",
    "History",
    "NonFiniteError",
    "StepOptions",
    "TensorBoard",
    "TrainConfig",
    "check_batch",
    "check_clusters",
    "check_last_batch",
    "check_resumed",
    "check_run",
    "choose_device",
    "evaluate_elbo",
    "fit",
    "growth_steps",
]
