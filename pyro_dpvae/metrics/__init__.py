"""Metrics: functions that return an estimate with its standard error and its settings."""

from pyro_dpvae.metrics.elbo_split import active_units, rate_split, unit_activity
from pyro_dpvae.metrics.estimate import Estimate
from pyro_dpvae.metrics.features import kernel_distance, precision_and_recall
from pyro_dpvae.metrics.frechet import FeatureStatistics, frechet_distance, frechet_estimate
from pyro_dpvae.metrics.leakage import THRESHOLDS, leakage_curve
from pyro_dpvae.metrics.likelihood import (
    LikelihoodEstimates,
    log_likelihoods,
    negative_log_likelihood,
)
from pyro_dpvae.metrics.nearest import distance_to_data
from pyro_dpvae.metrics.pockets import high_posterior_samples, low_posterior_samples
from pyro_dpvae.metrics.symmetric_kl import symmetric_kl

__all__ = [
    "THRESHOLDS",
    "Estimate",
    "FeatureStatistics",
    "LikelihoodEstimates",
    "active_units",
    "distance_to_data",
    "frechet_distance",
    "frechet_estimate",
    "high_posterior_samples",
    "kernel_distance",
    "leakage_curve",
    "log_likelihoods",
    "low_posterior_samples",
    "negative_log_likelihood",
    "precision_and_recall",
    "rate_split",
    "symmetric_kl",
    "unit_activity",
]
