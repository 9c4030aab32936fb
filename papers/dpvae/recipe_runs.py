"""The arguments of ``dpvae train`` for a run of a recipe, with any number of steps."""

from collections.abc import Sequence

from pyro_dpvae.recipes import named_recipe

__all__ = ["recipe_arguments"]


def recipe_arguments(
    recipe: str, *, seed: int, steps: int, overrides: Sequence[str]
) -> tuple[str, ...]:
    """Return the arguments of a run, with the schedules of the recipe in proportion to the steps.

    Args:
        recipe: the name of the recipe.
        seed: the seed of the run.
        steps: the number of training steps.
        overrides: options, each ``key=value``; they replace those of the recipe.

    Example:
        >>> arguments = recipe_arguments("mnist-vae", seed=1, steps=50, overrides=["batch_size=5"])
        >>> arguments[:6]
        ('--recipe', 'mnist-vae', '--seed', '1', '--steps', '50')
        >>> arguments[-1]
        '--override=batch_size=5'
    """
    whole = named_recipe(recipe)
    usual = dict(whole.numbers())
    in_proportion = [
        f"{key}={value}"
        for key, value in whole.at(steps).numbers()
        if key != "steps" and value != usual[key]
    ]
    return (
        *("--recipe", recipe, "--seed", str(seed), "--steps", str(steps)),
        *("--evaluate-every", str(max(steps // 4, 1))),
        *(f"--override={one}" for one in (*in_proportion, *overrides)),
    )
