"""Figures of trained runs."""

from pyro_dpvae.drawings.run import drawings_of, most_active

__all__ = ["drawings_of", "most_active"]
