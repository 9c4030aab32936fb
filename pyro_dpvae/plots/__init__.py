"""Figures from arrays, and the figures of a trained run."""

from pyro_dpvae.plots.clouds import CLOUD_COLORS, Clouds, clouds_figure
from pyro_dpvae.plots.clusters import cluster_codes
from pyro_dpvae.plots.latent import LABEL_COLORS, LatentSpace, latent_figure
from pyro_dpvae.plots.layers import layer_codes, layers_figure
from pyro_dpvae.plots.leakage import leakage_figure
from pyro_dpvae.plots.pockets import pockets_figure
from pyro_dpvae.plots.reconstructions import reconstruction_figure
from pyro_dpvae.plots.run import drawings_of, most_active
from pyro_dpvae.plots.samples import sample_figure
from pyro_dpvae.plots.traversal import traversal_figure
from pyro_dpvae.plots.two_moons import moons_figure

__all__ = [
    "CLOUD_COLORS",
    "LABEL_COLORS",
    "Clouds",
    "LatentSpace",
    "clouds_figure",
    "cluster_codes",
    "drawings_of",
    "latent_figure",
    "layer_codes",
    "layers_figure",
    "leakage_figure",
    "moons_figure",
    "most_active",
    "pockets_figure",
    "reconstruction_figure",
    "sample_figure",
    "traversal_figure",
]
