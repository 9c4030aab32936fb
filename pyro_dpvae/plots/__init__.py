"""Figures from arrays."""

from pyro_dpvae.plots.samples import sample_figure
from pyro_dpvae.plots.two_moons import moons_figure

__all__ = ["moons_figure", "sample_figure"]
