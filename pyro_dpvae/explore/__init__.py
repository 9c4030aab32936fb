"""An interactive page on the latent spaces of a run, and its server."""

from pyro_dpvae.explore.server import ExploreServer
from pyro_dpvae.explore.state import Explored, explored

__all__ = ["ExploreServer", "Explored", "explored"]
