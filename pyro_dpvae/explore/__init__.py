"""A page on which one walks through the latent spaces of a run, and the server behind it."""

from pyro_dpvae.explore.server import ExploreServer
from pyro_dpvae.explore.state import Explored, explored

__all__ = ["ExploreServer", "Explored", "explored"]
