"""Priors p(z), each a module whose call returns a distribution."""

from pyro_dpvae.priors._base import (
    AbstractDirectPrior,
    AbstractPrior,
    LinearizedDensity,
    LinearizedMap,
)
from pyro_dpvae.priors.autoregressive import AutoregressivePrior
from pyro_dpvae.priors.coupling import CouplingPrior
from pyro_dpvae.priors.mixture import AbstractMixturePrior, MixturePrior
from pyro_dpvae.priors.product import Joined, ProductPrior
from pyro_dpvae.priors.pushforward import Pushforward
from pyro_dpvae.priors.standard import StandardNormal

__all__ = [
    "PRIORS",
    "AbstractDirectPrior",
    "AbstractMixturePrior",
    "AbstractPrior",
    "AutoregressivePrior",
    "CouplingPrior",
    "Joined",
    "LinearizedDensity",
    "LinearizedMap",
    "MixturePrior",
    "ProductPrior",
    "Pushforward",
    "StandardNormal",
]

PRIORS: dict[str, type[AbstractPrior]] = {
    "autoregressive": AutoregressivePrior,
    "coupling": CouplingPrior,
    "mixture": MixturePrior,
    "standard": StandardNormal,
}
"""The priors by the names of the command line."""
