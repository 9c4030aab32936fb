"""Likelihoods p(x | z), each a module from a decoder's raw values to a distribution."""

from pyro_dpvae.likelihoods._base import AbstractLikelihood
from pyro_dpvae.likelihoods.bernoulli import BernoulliLikelihood
from pyro_dpvae.likelihoods.continuous_bernoulli import ContinuousBernoulliLikelihood
from pyro_dpvae.likelihoods.gaussian import (
    GaussianLearnedVarianceLikelihood,
    GaussianLikelihood,
    GaussianPixelVarianceLikelihood,
)
from pyro_dpvae.likelihoods.laplace import LaplaceLearnedScaleLikelihood, LaplaceLikelihood
from pyro_dpvae.likelihoods.logistic import DiscretizedLogisticLikelihood
from pyro_dpvae.likelihoods.logistic_mixture import DiscretizedLogisticMixtureLikelihood

__all__ = [
    "LIKELIHOODS",
    "AbstractLikelihood",
    "BernoulliLikelihood",
    "ContinuousBernoulliLikelihood",
    "DiscretizedLogisticLikelihood",
    "DiscretizedLogisticMixtureLikelihood",
    "GaussianLearnedVarianceLikelihood",
    "GaussianLikelihood",
    "GaussianPixelVarianceLikelihood",
    "LaplaceLearnedScaleLikelihood",
    "LaplaceLikelihood",
]

LIKELIHOODS: dict[str, type[AbstractLikelihood]] = {
    "bernoulli": BernoulliLikelihood,
    "continuous-bernoulli": ContinuousBernoulliLikelihood,
    "gaussian": GaussianLikelihood,
    "gaussian-learned": GaussianLearnedVarianceLikelihood,
    "gaussian-pixel": GaussianPixelVarianceLikelihood,
    "laplace": LaplaceLikelihood,
    "laplace-learned": LaplaceLearnedScaleLikelihood,
    "logistic": DiscretizedLogisticLikelihood,
    "logistic-mixture": DiscretizedLogisticMixtureLikelihood,
}
"""The likelihoods by the names of the command line."""
