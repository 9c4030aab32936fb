"""The aggregate posterior q(z) of a data set, from posteriors of any family."""

from pyro_dpvae.mixture.aggregate import AggregatePosterior
from pyro_dpvae.mixture.components import NEGLIGIBLE, has_product
from pyro_dpvae.mixture.moments import posterior_means

__all__ = ["NEGLIGIBLE", "AggregatePosterior", "has_product", "posterior_means"]
