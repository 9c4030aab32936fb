"""Importance sampling of log p(x): the weights p(x, z) / q(z | x), and statistics of them.

Pyro has two relatives. ``pyro.infer.Importance`` keeps one weight for a whole program, which suits
a single datum. ``pyro.infer.importance.vectorized_importance_weights`` sums over plates only if it
is told the nesting, and scales subsampled sites. Here every datum has its own weights.
"""

from pyro_dpvae.importance.sampler import ImportanceSampler, log_weight_chunks, log_weights
from pyro_dpvae.importance.statistics import (
    effective_sample_size,
    iwae_bound,
    log_mean_exp,
    pareto_k,
    pareto_k_of_tail,
    tail_length,
)
from pyro_dpvae.importance.weights import check_latents, paired_traces

__all__ = [
    "ImportanceSampler",
    "check_latents",
    "effective_sample_size",
    "iwae_bound",
    "log_mean_exp",
    "log_weight_chunks",
    "log_weights",
    "paired_traces",
    "pareto_k",
    "pareto_k_of_tail",
    "tail_length",
]
