"""Likelihoods p(x | z), each a module from a decoder's raw values to a distribution."""

from pyro_dpvae.likelihoods._base import AbstractLikelihood
from pyro_dpvae.likelihoods.bernoulli import Bernoulli
from pyro_dpvae.likelihoods.continuous_bernoulli import ContinuousBernoulli
from pyro_dpvae.likelihoods.gaussian import (
    Gaussian,
    GaussianLearnedVariance,
    GaussianPixelVariance,
)
from pyro_dpvae.likelihoods.laplace import Laplace, LaplaceLearnedScale
from pyro_dpvae.likelihoods.logistic import DiscretizedLogistic
from pyro_dpvae.likelihoods.logistic_mixture import DiscretizedLogisticMixture

__all__ = [
    "LIKELIHOODS",
    "AbstractLikelihood",
    "Bernoulli",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "Gaussian",
    "GaussianLearnedVariance",
    "GaussianPixelVariance",
    "Laplace",
    "LaplaceLearnedScale",
]

LIKELIHOODS: dict[str, type[AbstractLikelihood]] = {
    "bernoulli": Bernoulli,
    "continuous-bernoulli": ContinuousBernoulli,
    "gaussian": Gaussian,
    "gaussian-learned": GaussianLearnedVariance,
    "gaussian-pixel": GaussianPixelVariance,
    "laplace": Laplace,
    "laplace-learned": LaplaceLearnedScale,
    "logistic": DiscretizedLogistic,
    "logistic-mixture": DiscretizedLogisticMixture,
}
"""The likelihoods by the names of the command line."""
