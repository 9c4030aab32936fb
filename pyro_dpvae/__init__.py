"""Variational autoencoders in Pyro that represent and generate.

The public names are the parts of a system. What is not here has its module:
``pyro_dpvae.nn``, ``pyro_dpvae.likelihoods``, ``pyro_dpvae.objectives`` (rates, penalties,
schedules), ``pyro_dpvae.metrics``, ``pyro_dpvae.data``, ``pyro_dpvae.training``,
``pyro_dpvae.recipes``, ``pyro_dpvae.plots``.
"""

from pyro_dpvae.decoders import Decoder
from pyro_dpvae.encoders import GaussianEncoder, WeightedGaussianEncoder
from pyro_dpvae.guides import (
    AmortizedGaussian,
    FlowGuide,
    LaplaceGuide,
    RecursiveMixtureGuide,
    SemiAmortizedGuide,
)
from pyro_dpvae.mixture import AggregatePosterior
from pyro_dpvae.models import VAE
from pyro_dpvae.objectives import (
    DIPVAE,
    ELBO,
    MAE,
    BetaTCVAE,
    BetaVAE,
    CapacityVAE,
    FactorVAE,
    InfoVAE,
)
from pyro_dpvae.priors import CouplingPrior, StandardNormal

__all__ = [
    "DIPVAE",
    "ELBO",
    "MAE",
    "VAE",
    "AggregatePosterior",
    "AmortizedGaussian",
    "BetaTCVAE",
    "BetaVAE",
    "CapacityVAE",
    "CouplingPrior",
    "Decoder",
    "FactorVAE",
    "FlowGuide",
    "GaussianEncoder",
    "InfoVAE",
    "LaplaceGuide",
    "RecursiveMixtureGuide",
    "SemiAmortizedGuide",
    "StandardNormal",
    "WeightedGaussianEncoder",
]
