"""Metrics: functions that return an estimate with its standard error and its settings."""

from pyro_dpvae.metrics.estimate import Estimate
from pyro_dpvae.metrics.low_posterior import low_posterior_samples
from pyro_dpvae.metrics.nearest import distance_to_data
from pyro_dpvae.metrics.symmetric_kl import symmetric_kl

__all__ = ["Estimate", "distance_to_data", "low_posterior_samples", "symmetric_kl"]
