"""Inference: SVI with captured steps, and optimizers for it."""

from pyro_dpvae.inference.averaging import AccumulatingOptim, AveragingOptim, synchronize
from pyro_dpvae.inference.backends import AUTO, backend_for, check_backend
from pyro_dpvae.inference.captured import CapturedSVI, steps_together
from pyro_dpvae.inference.fused import FusedOptim

__all__ = [
    "AUTO",
    "AccumulatingOptim",
    "AveragingOptim",
    "CapturedSVI",
    "FusedOptim",
    "backend_for",
    "check_backend",
    "steps_together",
    "synchronize",
]
