"""The training loop: a model and a guide by ``CapturedSVI``, with records and checkpoints."""

from pyro_dpvae.training.checks import (
    check_batch,
    check_clusters,
    check_last_batch,
    growth_steps,
)
from pyro_dpvae.training.config import Clustering, Growing, TrainConfig
from pyro_dpvae.training.held_out import evaluate_elbo
from pyro_dpvae.training.loop import History, fit

__all__ = [
    "Clustering",
    "Growing",
    "History",
    "TrainConfig",
    "check_batch",
    "check_clusters",
    "check_last_batch",
    "evaluate_elbo",
    "fit",
    "growth_steps",
]
