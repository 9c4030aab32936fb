"""The paper's figures by number: which systems each needs, and what draws it."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from matplotlib.figure import Figure

from papers.dpvae.figures.factors import traversals_of_factors
from papers.dpvae.figures.leakage import leakage_with_and_without
from papers.dpvae.figures.moons import pockets_and_leaks, with_and_without
from papers.dpvae.figures.pairs import traversals_of_pairs
from papers.dpvae.figures.samples import samples_with_and_without
from papers.dpvae.figures.systems import Subjects, SystemKey
from pyro_dpvae.recipes import REGULARIZERS, dpvae_recipe

__all__ = ["FIGURES", "NumberedFigure"]


@dataclass(frozen=True)
class NumberedFigure:
    """A figure of the paper.

    Attributes:
        draw: draws the figure from trained systems; to be called without gradients.
        systems: the systems that the figure shows.
        moons: whether they are trained on two moons; otherwise on images.
    """

    draw: Callable[[Subjects], Figure]
    systems: tuple[SystemKey, ...]
    moons: bool = False

    def recipes(self, data: str, variant: str = "paper") -> dict[SystemKey, str]:
        """Return the recipe of each system.

        Args:
            data: the data set, for figures of images.
            variant: the variant of the recipes, for figures of images.

        Example:
            >>> list(FIGURES[8].recipes("mnist").values())
            ['mnist-factor-vae-dp']
        """
        if self.moons:
            data, variant = "two-moons", "paper"
        return {
            key: dpvae_recipe(data, key.regularizer, decoupled=key.decoupled, variant=variant)
            for key in self.systems
        }


def _systems(*regularizers: str, decoupled: tuple[bool, ...]) -> tuple[SystemKey, ...]:
    return tuple(SystemKey(*pair) for pair in product(regularizers, decoupled))


_EITHER = (False, True)

FIGURES: dict[int, NumberedFigure] = {
    1: NumberedFigure(with_and_without, _systems("beta-vae-h", decoupled=_EITHER), moons=True),
    3: NumberedFigure(
        pockets_and_leaks,
        _systems("beta-vae-h", "factor-vae", "beta-tcvae", "info-vae", decoupled=(False,)),
        moons=True,
    ),
    4: NumberedFigure(leakage_with_and_without, _systems(*REGULARIZERS, decoupled=_EITHER)),
    # Which three the paper shows is unknown.
    5: NumberedFigure(
        samples_with_and_without,
        _systems("beta-vae-h", "factor-vae", "info-vae", decoupled=_EITHER),
    ),
    6: NumberedFigure(traversals_of_pairs, _systems("vae", decoupled=_EITHER)),
    8: NumberedFigure(traversals_of_factors, _systems("factor-vae", decoupled=(True,))),
}
"""By the paper's numbers. Figures 2, 9 and 10 are diagrams; 7 is figure 6 on CelebA."""
