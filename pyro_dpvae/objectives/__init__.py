"""Objectives for pyro.infer.SVI: the evidence lower bound with any rate and any penalties."""

from pyro_dpvae.objectives._gathering import Gathered
from pyro_dpvae.objectives._rebuilding import rebuild
from pyro_dpvae.objectives.elbo import ELBO
from pyro_dpvae.objectives.penalties import (
    DIP,
    MMD,
    AbstractPenalty,
    AdversarialDivergence,
    AdversarialTotalCorrelation,
    Latents,
    LatentSite,
    MutualDivergence,
    SteinDiscrepancy,
    TotalCorrelation,
)
from pyro_dpvae.objectives.presets import (
    DIPVAE,
    MAE,
    BetaTCVAE,
    BetaVAE,
    CapacityVAE,
    FactorVAE,
    FreeBitsVAE,
    InfoVAE,
    SoftFreeBitsVAE,
)
from pyro_dpvae.objectives.rates import (
    AbstractRate,
    Beta,
    Capacity,
    FreeBits,
    SiteRate,
    SoftFreeBits,
)
from pyro_dpvae.objectives.schedules import (
    SCHEDULES,
    AbstractSchedule,
    Cosine,
    Cyclic,
    Delayed,
    Exponential,
    Linear,
    Saturating,
    Weight,
)

__all__ = [
    "DIP",
    "DIPVAE",
    "ELBO",
    "MAE",
    "MMD",
    "OBJECTIVES",
    "SCHEDULES",
    "AbstractPenalty",
    "AbstractRate",
    "AbstractSchedule",
    "AdversarialDivergence",
    "AdversarialTotalCorrelation",
    "Beta",
    "BetaTCVAE",
    "BetaVAE",
    "Capacity",
    "CapacityVAE",
    "Cosine",
    "Cyclic",
    "Delayed",
    "Exponential",
    "FactorVAE",
    "FreeBits",
    "FreeBitsVAE",
    "Gathered",
    "InfoVAE",
    "LatentSite",
    "Latents",
    "Linear",
    "MutualDivergence",
    "Saturating",
    "SiteRate",
    "SoftFreeBits",
    "SoftFreeBitsVAE",
    "SteinDiscrepancy",
    "TotalCorrelation",
    "Weight",
    "rebuild",
]

OBJECTIVES: dict[str, type[ELBO]] = {
    "beta": BetaVAE,
    "beta-tc": BetaTCVAE,
    "capacity": CapacityVAE,
    "dip": DIPVAE,
    "elbo": ELBO,
    "factor": FactorVAE,
    "free-bits": FreeBitsVAE,
    "info": InfoVAE,
    "mae": MAE,
    "soft-free-bits": SoftFreeBitsVAE,
}
"""The objectives by the names of the command line."""
