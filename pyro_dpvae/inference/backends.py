"""The ways to run a training step, by name."""

from typing import Any

import torch
from torch import nn

from pyro_dpvae._checks import check_choice
from pyro_dpvae.objectives import RegularizedELBO

__all__ = ["AUTO", "backend_for", "check_backend"]

_BACKENDS = ("eager", "fx", "inductor", "cudagraph")

AUTO = "auto"
"""The backend that depends on whose the programs are."""

# What these hold beside tensors and numbers of modules does not change during training.
_KNOWN = {"pyro_dpvae", "torch", "pyro", "zuko"}


def check_backend(backend: str) -> str:
    """Return the name of a backend that works here.

    Raises:
        ValueError: if there is no such backend, or for ``"cudagraph"`` no CUDA device.
    """
    check_choice("backend", backend, _BACKENDS)
    if backend == "cudagraph" and not torch.cuda.is_available():
        raise ValueError(
            "the backend 'cudagraph' needs a CUDA device, and PyTorch sees none; use 'fx' or "
            "'inductor'"
        )
    return backend


def backend_for(backend: str, model: Any, guide: Any, objective: Any) -> str:
    """Return the backend that runs programs, where ``"auto"`` leaves the choice.

    It is ``"fx"`` where model, guide and objective have no parts but those of this library, Pyro,
    PyTorch and zuko, and ``"eager"`` otherwise: a part of a user's own may read what a recording
    holds fixed.

    Example:
        >>> backend_for("auto", lambda x: None, lambda x: None, RegularizedELBO())
        'eager'
    """
    if backend != AUTO:
        return backend
    parts = [model, guide, objective]
    parts += objective.parts() if isinstance(objective, RegularizedELBO) else []
    inner = [m for part in parts if isinstance(part, nn.Module) for m in part.modules()]
    roots = {type(part).__module__.split(".")[0] for part in (*parts, *inner)}
    return "fx" if roots <= _KNOWN else "eager"
