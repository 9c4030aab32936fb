"""Likelihoods p(x | z), each a module from a decoder's raw values to a distribution."""

from pyro_dpvae.likelihoods._base import AbstractLikelihood
from pyro_dpvae.likelihoods.bernoulli import BernoulliLikelihood, ContinuousBernoulliLikelihood
from pyro_dpvae.likelihoods.counts import NegativeBinomialLikelihood, PoissonLikelihood
from pyro_dpvae.likelihoods.location_scale import (
    GaussianLearnedVarianceLikelihood,
    GaussianLikelihood,
    GaussianPixelVarianceLikelihood,
    LaplaceLearnedScaleLikelihood,
    LaplaceLikelihood,
)
from pyro_dpvae.likelihoods.logistic import (
    DiscretizedLogisticLikelihood,
    DiscretizedLogisticMixtureLikelihood,
)
from pyro_dpvae.likelihoods.mixed import CategoricalLikelihood, MixedLikelihood

__all__ = [
    "LIKELIHOODS",
    "AbstractLikelihood",
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "ContinuousBernoulliLikelihood",
    "DiscretizedLogisticLikelihood",
    "DiscretizedLogisticMixtureLikelihood",
    "GaussianLearnedVarianceLikelihood",
    "GaussianLikelihood",
    "GaussianPixelVarianceLikelihood",
    "LaplaceLearnedScaleLikelihood",
    "LaplaceLikelihood",
    "MixedLikelihood",
    "NegativeBinomialLikelihood",
    "PoissonLikelihood",
]

LIKELIHOODS: dict[str, type[AbstractLikelihood]] = {
    "bernoulli": BernoulliLikelihood,
    "categorical": CategoricalLikelihood,
    "continuous-bernoulli": ContinuousBernoulliLikelihood,
    "gaussian": GaussianLikelihood,
    "gaussian-learned": GaussianLearnedVarianceLikelihood,
    "gaussian-pixel": GaussianPixelVarianceLikelihood,
    "laplace": LaplaceLikelihood,
    "laplace-learned": LaplaceLearnedScaleLikelihood,
    "logistic": DiscretizedLogisticLikelihood,
    "logistic-mixture": DiscretizedLogisticMixtureLikelihood,
    "mixed": MixedLikelihood,
    "negative-binomial": NegativeBinomialLikelihood,
    "poisson": PoissonLikelihood,
}
"""The likelihoods by name."""
