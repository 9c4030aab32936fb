"""Inference: optimizers for pyro.infer.SVI."""

from pyro_dpvae.inference.fused import FusedOptim

__all__ = ["FusedOptim"]
