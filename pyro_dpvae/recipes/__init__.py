"""Named systems: which parts, which numbers, from which source."""

from typing import TYPE_CHECKING

from pyro_dpvae._lazy import lazily

if TYPE_CHECKING:
    from pyro_dpvae.recipes.config import RunConfig
    from pyro_dpvae.recipes.dpvae import DPVAE_DATA_SETS, REGULARIZERS, Regularizer, dpvae_recipe
    from pyro_dpvae.recipes.guides import GUIDES
    from pyro_dpvae.recipes.models import MODELS
    from pyro_dpvae.recipes.named import RECIPES, named_recipe
    from pyro_dpvae.recipes.opening import open_run
    from pyro_dpvae.recipes.priors import SYSTEM_PRIORS
    from pyro_dpvae.recipes.recipe import Recipe
    from pyro_dpvae.recipes.run import Run
    from pyro_dpvae.recipes.system import System, build_system, start_from_data
    from pyro_dpvae.recipes.training import train
    from pyro_dpvae.recipes.two_moons import MoonsResult, measure_moons, train_moons

__all__ = [
    "DPVAE_DATA_SETS",
    "GUIDES",
    "MODELS",
    "RECIPES",
    "REGULARIZERS",
    "SYSTEM_PRIORS",
    "MoonsResult",
    "Recipe",
    "Regularizer",
    "Run",
    "RunConfig",
    "System",
    "build_system",
    "dpvae_recipe",
    "measure_moons",
    "named_recipe",
    "open_run",
    "start_from_data",
    "train",
    "train_moons",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(
        __name__,
        __all__,
        modules=[
            *("recipe", "dpvae", "named", "guides", "models", "priors"),
            *("system", "config", "run", "opening", "training", "two_moons"),
        ],
    )
