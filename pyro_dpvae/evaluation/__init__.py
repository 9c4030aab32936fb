"""Evaluation of trained runs: groups of metrics, and the comparison of runs."""

from pyro_dpvae.evaluation.compare import (
    Comparison,
    Difference,
    compare_runs,
    compare_seeds,
)
from pyro_dpvae.evaluation.evaluate import GROUPS, evaluate_run, numbers_of
from pyro_dpvae.evaluation.subject import EvaluationConfig, Subject

__all__ = [
    "GROUPS",
    "Comparison",
    "Difference",
    "EvaluationConfig",
    "Subject",
    "compare_runs",
    "compare_seeds",
    "evaluate_run",
    "numbers_of",
]
