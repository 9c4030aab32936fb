"""Inference: SVI with recorded steps, and optimizers for it."""

from pyro_dpvae.inference.captured import CapturedSVI, check_backend, steps_together
from pyro_dpvae.inference.fused import FusedOptim

__all__ = ["CapturedSVI", "FusedOptim", "check_backend", "steps_together"]
