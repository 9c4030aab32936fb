"""Pyro guides q(z | x), which approximate the posterior of a model."""

if __name__ != "pyro_dpvae.guides":
    raise ImportError(
        f"this package is pyro_dpvae.guides, not {__name__}: the folder guides at the top of the "
        "repository only links to it; write 'from pyro_dpvae.guides import ...'"
    )

from pyro_dpvae.guides._base import AbstractGuide
from pyro_dpvae.guides.amortized import AmortizedGaussian
from pyro_dpvae.guides.clustering_ladder import ClusteringLadderGuide
from pyro_dpvae.guides.flow import FlowGuide
from pyro_dpvae.guides.ladder import LadderGuide
from pyro_dpvae.guides.laplace import LaplaceGuide
from pyro_dpvae.guides.recursive_mixture import RecursiveMixtureGuide
from pyro_dpvae.guides.semi_amortized import SemiAmortizedGuide

__all__ = [
    "AbstractGuide",
    "AmortizedGaussian",
    "ClusteringLadderGuide",
    "FlowGuide",
    "LadderGuide",
    "LaplaceGuide",
    "RecursiveMixtureGuide",
    "SemiAmortizedGuide",
]
