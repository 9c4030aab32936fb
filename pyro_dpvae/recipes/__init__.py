"""Named systems: which parts, which numbers, from which source."""

from pyro_dpvae.recipes.guides import GUIDES
from pyro_dpvae.recipes.models import MODELS
from pyro_dpvae.recipes.named import RECIPES, Recipe
from pyro_dpvae.recipes.posteriors import (
    POSTERIOR_MODELS,
    PosteriorResult,
    fixed_model,
    measure_posteriors,
)
from pyro_dpvae.recipes.priors import SYSTEM_PRIORS
from pyro_dpvae.recipes.saved import SavedSystem, open_system
from pyro_dpvae.recipes.system import System, build_system, start_from_data
from pyro_dpvae.recipes.two_moons import MoonsResult, measure_moons, train_moons

__all__ = [
    "GUIDES",
    "MODELS",
    "POSTERIOR_MODELS",
    "RECIPES",
    "SYSTEM_PRIORS",
    "MoonsResult",
    "PosteriorResult",
    "Recipe",
    "SavedSystem",
    "System",
    "build_system",
    "fixed_model",
    "measure_moons",
    "measure_posteriors",
    "open_system",
    "start_from_data",
    "train_moons",
]
