"""The backends of a training step, by name."""

from typing import Any

import torch
from torch import nn

from pyro_dpvae._checks import check_choice
from pyro_dpvae.objectives import RegularizedELBO

__all__ = ["AUTO", "backend_for", "check_backend"]

_BACKENDS = ("eager", "fx", "inductor", "cudagraph")

AUTO = "auto"
"""The backend that is chosen by the classes of the programs."""

# Apart from tensors and numbers, attributes of these packages' modules are constant in training.
_KNOWN = {"pyro_dpvae", "torch", "pyro", "zuko"}


def check_backend(backend: str) -> str:
    """Return the name of a backend after checking that it works here.

    Raises:
        ValueError: if the backend is unknown, or ``"cudagraph"`` has no CUDA device.
    """
    check_choice("backend", backend, _BACKENDS)
    if backend == "cudagraph" and not torch.cuda.is_available():
        raise ValueError(
            "backend 'cudagraph' needs a CUDA device, and PyTorch sees none; use 'fx' or "
            "'inductor'"
        )
    return backend


def backend_for(backend: str, model: Any, guide: Any, objective: Any) -> str:
    """Return the backend for some programs; ``"auto"`` becomes ``"fx"`` or ``"eager"``.

    ``"fx"`` is chosen if model, guide and objective have only parts of this library, Pyro, PyTorch
    and zuko. Other parts may read values that a capture would freeze.

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
