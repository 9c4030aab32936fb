"""Objectives for pyro.infer.SVI: the evidence lower bound with any rate and any penalties."""

from pyro_dpvae.objectives._gathering import Gathered
from pyro_dpvae.objectives._rebuilding import rebuild
from pyro_dpvae.objectives.elbo import RegularizedELBO
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
    DIPELBO,
    BetaELBO,
    BetaTCELBO,
    CapacityELBO,
    FactorELBO,
    FreeBitsELBO,
    InfoELBO,
    MutualDivergenceELBO,
    SoftFreeBitsELBO,
)
from pyro_dpvae.objectives.rates import (
    AbstractRate,
    BetaRate,
    CapacityRate,
    FreeBitsRate,
    SiteRate,
    SoftFreeBitsRate,
)
from pyro_dpvae.objectives.schedules import (
    SCHEDULES,
    AbstractSchedule,
    CosineSchedule,
    CyclicSchedule,
    DelayedSchedule,
    ExponentialSchedule,
    LinearSchedule,
    SaturatingSchedule,
    Weight,
)

__all__ = [
    "DIP",
    "DIPELBO",
    "MMD",
    "OBJECTIVES",
    "SCHEDULES",
    "AbstractPenalty",
    "AbstractRate",
    "AbstractSchedule",
    "AdversarialDivergence",
    "AdversarialTotalCorrelation",
    "BetaELBO",
    "BetaRate",
    "BetaTCELBO",
    "CapacityELBO",
    "CapacityRate",
    "CosineSchedule",
    "CyclicSchedule",
    "DelayedSchedule",
    "ExponentialSchedule",
    "FactorELBO",
    "FreeBitsELBO",
    "FreeBitsRate",
    "Gathered",
    "InfoELBO",
    "LatentSite",
    "Latents",
    "LinearSchedule",
    "MutualDivergence",
    "MutualDivergenceELBO",
    "RegularizedELBO",
    "SaturatingSchedule",
    "SiteRate",
    "SoftFreeBitsELBO",
    "SoftFreeBitsRate",
    "SteinDiscrepancy",
    "TotalCorrelation",
    "Weight",
    "rebuild",
]

OBJECTIVES: dict[str, type[RegularizedELBO]] = {
    "beta": BetaELBO,
    "beta-tc": BetaTCELBO,
    "capacity": CapacityELBO,
    "dip": DIPELBO,
    "elbo": RegularizedELBO,
    "factor": FactorELBO,
    "free-bits": FreeBitsELBO,
    "info": InfoELBO,
    "mae": MutualDivergenceELBO,
    "soft-free-bits": SoftFreeBitsELBO,
}
"""The objectives by name."""
