"""How long a reproduction trains and how much it measures: as the paper, or for an hour."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pyro_dpvae.evaluation.config import EvaluationConfig
from pyro_dpvae.recipes.named import RECIPES

__all__ = ["AUTHORS_CODE", "BUDGETS", "EVALUATION", "Budget", "steps_of"]

AUTHORS_CODE = "authors-code"
"""The variant of recipes in which the two models of a pair differ in more than the prior."""

EVALUATION = ("nll_samples", "nll_data", "latent_samples", "images")
"""The fields of an ``EvaluationConfig`` that a budget sets."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long runs train and how much is measured.

    Attributes:
        steps: training steps of each run.
        seeds: number of runs of each recipe.
        overrides: training options that replace those of the recipes.
        evaluation: numbers of the evaluation that differ from its defaults.
    """

    steps: int
    seeds: int = 3
    overrides: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, int] = field(default_factory=dict)

    @property
    def measured(self) -> dict[str, int]:
        """All numbers of the evaluation, by the names in ``EVALUATION``."""
        usual = EvaluationConfig()
        return {name: self.evaluation.get(name, getattr(usual, name)) for name in EVALUATION}


BUDGETS: dict[str, Budget] = {
    "paper": Budget(steps=100_000),
    "hour": Budget(
        steps=800,
        overrides={"learning_rate": 1e-3},  # the recipes' rate is for 100,000 steps
        evaluation={"nll_samples": 500, "nll_data": 100, "latent_samples": 2000, "images": 2000},
    ),
}
"""By name: ``paper`` has the paper's number of steps; ``hour`` takes two processors about an hour
on MNIST."""


def steps_of(recipe: str, steps: int) -> int:
    """Return the number of steps of a recipe if a recipe of 100,000 steps trains ``steps``.

    The configurations of the authors' code keep their proportions: one has 200,000 steps.

    Example:
        >>> steps_of("mnist-beta-tcvae-dp", 800), steps_of("mnist-beta-tcvae-dp-authors-code", 800)
        (800, 1600)
    """
    if not recipe.endswith(AUTHORS_CODE):
        return steps
    own: int = RECIPES[recipe].options["steps"]
    return max(round(steps * own / BUDGETS["paper"].steps), 1)
