"""Open the run folder of a training as a run, with its system rebuilt."""

from pathlib import Path

import torch
from torch import nn

from pyro_dpvae.errors import ConfigError
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.recipes.config import RunConfig
from pyro_dpvae.recipes.run import Run
from pyro_dpvae.recipes.system import System
from pyro_dpvae.runs import RunFolder

__all__ = ["open_run"]


def open_run(
    path: str | Path,
    device: torch.device | str = "cpu",
    *,
    checkpoint: str | int = "last",
    weights: str | None = None,
    model: nn.Module | None = None,
    guide: nn.Module | None = None,
) -> Run:
    """Open a run folder: rebuild its system and load its weights.

    If your own program has trained the run with ``fit``, build the model and the guide as that
    program does and give them here.

    Args:
        path: the folder.
        device: the device of the system.
        checkpoint: ``"last"``, ``"best"``, or a step.
        weights: ``"raw"``, or ``"average"`` for their moving average; None takes the average if
            the run has one.
        model: the model of a run whose configuration does not name its parts.
        guide: likewise the guide.

    Raises:
        FileNotFoundError: if no run with such a checkpoint is there.
        ValueError: if the checkpoint is damaged or of another run, or has no such weights.
    """
    run = RunFolder.open(path)
    found = run.checkpoint(checkpoint)
    config, state = run.config, found.state
    if (model is None) != (guide is None):
        raise ValueError(
            "model and guide of a run must be given together, got one of them; build both as in "
            "training"
        )
    if model is not None and guide is not None:
        system = System(model, guide, RegularizedELBO())  # type: ignore[arg-type]
    elif "prior" in config:
        shape, size = tuple(state["item_shape"]), state["dataset_size"]
        system = RunConfig.of(config).build(shape, dataset_size=size)
    else:
        raise ConfigError(
            f"the configuration of {run.path} must name the parts of the run, and it does not: a "
            f"program has trained {state['classes']['model']} with {state['classes']['guide']}; "
            "build both as that program does, and open the run in Python by "
            "open_run(path, model=..., guide=...)"
        )
    if weights is None:
        weights = "average" if found.averaged else "raw"
    found.load({"model": system.model, "guide": system.guide}, weights=weights)
    for module in (system.model, system.guide):
        module.to(device).eval()
    return Run(run, found, system, torch.device(device), weights)
