"""Priors p(z): modules whose call returns a distribution."""

from collections.abc import Callable

from pyro_dpvae.priors._base import (
    AbstractDirectPrior,
    AbstractPrior,
    LinearizedDensity,
    LinearizedMap,
    StandardNormal,
)
from pyro_dpvae.priors.coupling import CouplingPrior, coupling_over_mixture
from pyro_dpvae.priors.fixed import FixedPrior
from pyro_dpvae.priors.flow import AutoregressivePrior, FlowDistribution, FlowTransform
from pyro_dpvae.priors.mixture import AbstractMixturePrior, MixturePrior, VampPrior
from pyro_dpvae.priors.product import Joined, ProductPrior
from pyro_dpvae.priors.resampled import Acceptance, Resampled, ResampledPrior
from pyro_dpvae.priors.zuko import ZukoPrior

__all__ = [
    "PRIORS",
    "AbstractDirectPrior",
    "AbstractMixturePrior",
    "AbstractPrior",
    "Acceptance",
    "AutoregressivePrior",
    "CouplingPrior",
    "FixedPrior",
    "FlowDistribution",
    "FlowTransform",
    "Joined",
    "LinearizedDensity",
    "LinearizedMap",
    "MixturePrior",
    "ProductPrior",
    "Resampled",
    "ResampledPrior",
    "StandardNormal",
    "VampPrior",
    "ZukoPrior",
]

PRIORS: dict[str, Callable[..., AbstractPrior]] = {
    "autoregressive": AutoregressivePrior,
    "coupling": CouplingPrior,
    "coupling-mixture": coupling_over_mixture,
    "mixture": MixturePrior,
    "resampled": ResampledPrior,
    "standard": StandardNormal,
}
"""The priors by name, except ``VampPrior`` (it needs the guide's encoder) and ``ZukoPrior``."""
