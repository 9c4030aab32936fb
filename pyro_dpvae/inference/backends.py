"""The ways to run a training step, by name."""

import torch

from pyro_dpvae._checks import check_choice

__all__ = ["BACKENDS", "check_backend"]

BACKENDS = ("eager", "fx", "inductor", "cudagraph")


def check_backend(backend: str) -> str:
    """Return the name of a backend that works here.

    Raises:
        ValueError: if there is no such backend, or for ``"cudagraph"`` no CUDA device.
    """
    check_choice("backend", backend, BACKENDS)
    if backend == "cudagraph" and not torch.cuda.is_available():
        raise ValueError(
            "the backend 'cudagraph' needs a CUDA device, and PyTorch sees none; use 'fx' or "
            "'inductor'"
        )
    return backend
