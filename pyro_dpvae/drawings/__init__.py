"""Figures of trained runs."""

from pyro_dpvae.drawings.run import drawings_of

__all__ = ["drawings_of"]
