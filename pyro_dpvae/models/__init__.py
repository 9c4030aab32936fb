"""Pyro models p(x, z)."""

if __name__ != "pyro_dpvae.models":
    raise ImportError(
        f"this package is pyro_dpvae.models, not {__name__}: the folder models at the top of the "
        "repository only links to it; write 'from pyro_dpvae.models import ...'"
    )

from pyro_dpvae.models.clustering_ladder import ClusteringLadderVAE
from pyro_dpvae.models.ladder import LadderVAE
from pyro_dpvae.models.lossy import LossyVAE
from pyro_dpvae.models.vae import VAE, AbstractVAE

__all__ = ["VAE", "AbstractVAE", "ClusteringLadderVAE", "LadderVAE", "LossyVAE"]
