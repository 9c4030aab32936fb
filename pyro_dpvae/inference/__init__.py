"""Inference: SVI with recorded steps, and optimizers for it."""

from pyro_dpvae.inference.captured import BACKENDS, CapturedSVI, steps_together
from pyro_dpvae.inference.fused import FusedOptim

__all__ = ["BACKENDS", "CapturedSVI", "FusedOptim", "steps_together"]
