"""Priors p(z), each a module whose call returns a distribution."""

from pyro_dpvae.priors._base import AbstractPrior, LinearizedMap
from pyro_dpvae.priors.coupling import CouplingPrior
from pyro_dpvae.priors.product import Joined, ProductPrior
from pyro_dpvae.priors.pushforward import Pushforward
from pyro_dpvae.priors.standard import StandardNormal

__all__ = [
    "PRIORS",
    "AbstractPrior",
    "CouplingPrior",
    "Joined",
    "LinearizedMap",
    "ProductPrior",
    "Pushforward",
    "StandardNormal",
]

PRIORS: dict[str, type[AbstractPrior]] = {"coupling": CouplingPrior, "standard": StandardNormal}
"""The priors by the names of the command line."""
