"""Likelihoods p(x|z): normalised densities over a whole datum, with checked support."""

from pyro_dpvae.likelihoods._base import AbstractLikelihood
from pyro_dpvae.likelihoods.bernoulli import Bernoulli, ContinuousBernoulli
from pyro_dpvae.likelihoods.gaussian import (
    Gaussian,
    GaussianLearnedVariance,
    GaussianPixelVariance,
)
from pyro_dpvae.likelihoods.logistic import DiscretizedLogistic

__all__ = [
    "LIKELIHOODS",
    "AbstractLikelihood",
    "Bernoulli",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "Gaussian",
    "GaussianLearnedVariance",
    "GaussianPixelVariance",
]

LIKELIHOODS: dict[str, type[AbstractLikelihood]] = {
    "bernoulli": Bernoulli,
    "continuous-bernoulli": ContinuousBernoulli,
    "gaussian": Gaussian,
    "gaussian-learned": GaussianLearnedVariance,
    "gaussian-pixel": GaussianPixelVariance,
    "logistic": DiscretizedLogistic,
}
"""The likelihoods by the names of the command line."""
