"""Evaluation of trained runs: groups of metrics, and the comparison of runs."""

from typing import TYPE_CHECKING

from pyro_dpvae._lazy import lazily

if TYPE_CHECKING:
    from pyro_dpvae.evaluation.compare import (
        Comparison,
        Difference,
        compare_runs,
        compare_seeds,
    )
    from pyro_dpvae.evaluation.config import EvaluationConfig
    from pyro_dpvae.evaluation.evaluate import GROUPS, evaluate_run, numbers_of
    from pyro_dpvae.evaluation.subject import Subject

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

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(
        __name__,
        __all__,
        modules=["config", "subject", "evaluate", "compare"],
    )
