"""How much a reproduction trains and measures: the paper's numbers, or what fits into an hour."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pyro_dpvae.evaluation.config import EvaluationConfig
from pyro_dpvae.recipes.named import RECIPES

__all__ = ["AUTHORS_CODE", "BUDGETS", "EVALUATION", "Budget", "steps_of"]

AUTHORS_CODE = "authors-code"
"""The variant of recipes whose numbers differ within pairs."""

EVALUATION = ("nll_samples", "nll_data", "latent_samples", "images")
"""What of an ``EvaluationConfig`` a budget decides."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is trained and measured.

    Attributes:
        steps: of each run.
        seeds: how many runs of each recipe.
        overrides: options that go before those of the recipes.
        evaluation: the numbers of an evaluation that are not its defaults.
    """

    steps: int
    seeds: int = 3
    overrides: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, int] = field(default_factory=dict)

    @property
    def measured(self) -> dict[str, int]:
        """All numbers of the evaluation, those of ``EVALUATION``."""
        usual = EvaluationConfig()
        return {name: self.evaluation.get(name, getattr(usual, name)) for name in EVALUATION}


BUDGETS: dict[str, Budget] = {
    "paper": Budget(steps=100_000),
    "hour": Budget(
        steps=800,
        overrides={"learning_rate": 1e-3},  # the recipes' own is for 100,000 steps
        evaluation={"nll_samples": 500, "nll_data": 100, "latent_samples": 2000, "images": 2000},
    ),
}
"""``paper`` has the steps of the paper and the draws of an evaluation; ``hour`` what two
processors do of MNIST in about an hour."""


def steps_of(recipe: str, steps: int) -> int:
    """Return how many steps a run takes where those of the paper's recipes take ``steps``.

    The published configurations keep their proportions: one has twice the steps of the others.

    Example:
        >>> steps_of("mnist-beta-tcvae-dp", 800), steps_of("mnist-beta-tcvae-dp-authors-code", 800)
        (800, 1600)
    """
    if not recipe.endswith(AUTHORS_CODE):
        return steps
    own: int = RECIPES[recipe].options["steps"]
    return max(round(steps * own / BUDGETS["paper"].steps), 1)
