"""Metrics: functions that return an estimate with its standard error and its settings."""

from pyro_dpvae.metrics.disentanglement import (
    DISENTANGLEMENT,
    constant_factors,
    dci,
    factor_vae_score,
    mig,
    modularity,
    sap,
)
from pyro_dpvae.metrics.estimate import Estimate
from pyro_dpvae.metrics.features import (
    FeatureStatistics,
    distance_to_data,
    frechet_distance,
    frechet_estimate,
    kernel_distance,
    precision_and_recall,
)
from pyro_dpvae.metrics.likelihood import (
    LikelihoodEstimates,
    log_likelihoods,
    negative_log_likelihood,
)
from pyro_dpvae.metrics.pockets import (
    THRESHOLDS,
    high_posterior_samples,
    leakage_curve,
    low_posterior_samples,
)
from pyro_dpvae.metrics.posterior_grid import (
    PosteriorGrid,
    cell_kl,
    log_cell_mass,
    posterior_grid,
    posterior_kl,
)
from pyro_dpvae.metrics.representation import (
    assigned_clusters,
    cluster_accuracy,
    cluster_information,
    held_out_accuracy,
    k_means,
    layer_accuracies,
    layer_clusters,
    linear_probe_accuracy,
    nearest_neighbour_accuracy,
)
from pyro_dpvae.metrics.symmetric_kl import (
    active_units,
    kl_divergences,
    rate_split,
    split_half_kl,
    symmetric_kl,
    unit_activity,
)

__all__ = [
    "DISENTANGLEMENT",
    "THRESHOLDS",
    "Estimate",
    "FeatureStatistics",
    "LikelihoodEstimates",
    "PosteriorGrid",
    "active_units",
    "assigned_clusters",
    "cell_kl",
    "cluster_accuracy",
    "cluster_information",
    "constant_factors",
    "dci",
    "distance_to_data",
    "factor_vae_score",
    "frechet_distance",
    "frechet_estimate",
    "held_out_accuracy",
    "high_posterior_samples",
    "k_means",
    "kernel_distance",
    "kl_divergences",
    "layer_accuracies",
    "layer_clusters",
    "leakage_curve",
    "linear_probe_accuracy",
    "log_cell_mass",
    "log_likelihoods",
    "low_posterior_samples",
    "mig",
    "modularity",
    "nearest_neighbour_accuracy",
    "negative_log_likelihood",
    "posterior_grid",
    "posterior_kl",
    "precision_and_recall",
    "rate_split",
    "sap",
    "split_half_kl",
    "symmetric_kl",
    "unit_activity",
]
