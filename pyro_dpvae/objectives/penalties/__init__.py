"""Penalties: terms of the loss that depend on all representations of a batch."""

from pyro_dpvae.objectives.penalties.adversarial import (
    AdversarialDivergence,
    AdversarialTotalCorrelation,
)
from pyro_dpvae.objectives.penalties.dip import DIP
from pyro_dpvae.objectives.penalties.latents import AbstractPenalty, Latents, LatentSite
from pyro_dpvae.objectives.penalties.mmd import MMD
from pyro_dpvae.objectives.penalties.mutual_divergence import MutualDivergence
from pyro_dpvae.objectives.penalties.stein import SteinDiscrepancy
from pyro_dpvae.objectives.penalties.total_correlation import TotalCorrelation

__all__ = [
    "DIP",
    "MMD",
    "AbstractPenalty",
    "AdversarialDivergence",
    "AdversarialTotalCorrelation",
    "LatentSite",
    "Latents",
    "MutualDivergence",
    "SteinDiscrepancy",
    "TotalCorrelation",
]
