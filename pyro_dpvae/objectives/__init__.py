"""Objectives for pyro.infer.SVI: the evidence lower bound with any rate and any penalties."""

from pyro_dpvae.objectives.elbo import ELBO, BetaVAE
from pyro_dpvae.objectives.penalties import AbstractPenalty, LatentSite
from pyro_dpvae.objectives.rates import AbstractRate, Beta

__all__ = [
    "ELBO",
    "OBJECTIVES",
    "AbstractPenalty",
    "AbstractRate",
    "Beta",
    "BetaVAE",
    "LatentSite",
]

OBJECTIVES: dict[str, type[ELBO]] = {"beta": BetaVAE, "elbo": ELBO}
"""The objectives by the names of the command line."""
