"""The systems of the papers by name."""

import difflib
from collections.abc import Iterator

from pyro_dpvae.errors import ConfigError
from pyro_dpvae.recipes.authors_code import AUTHORS_CODE
from pyro_dpvae.recipes.dpvae import PAPER
from pyro_dpvae.recipes.recipe import Recipe, published

__all__ = ["RECIPES", "named_recipe"]


def _related() -> Iterator[tuple[str, Recipe]]:
    """Yield related systems of other papers, each also under a decoupled prior as ``...-dp``."""
    for name, found in published("related").items():
        prior = found["decoupled"]
        recipe = Recipe(**{key: found[key] for key in found if key != "decoupled"})
        yield name, recipe
        yield f"{name}-dp", recipe.with_prior(**prior)


RECIPES: dict[str, Recipe] = {**PAPER, **AUTHORS_CODE, **dict(_related())}
"""The recipes by the names of the command line."""


def named_recipe(name: str) -> Recipe:
    """Return the recipe with a name.

    Raises:
        ValueError: if there is no such recipe; the message suggests similar names.

    Example:
        >>> named_recipe("mnist-vae-dp").title
        'dpVAE on mnist'
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ConfigError(
            f"recipe must be one of those that 'dpvae recipes' lists, got {name!r}{hint}"
        )
    return RECIPES[name]
