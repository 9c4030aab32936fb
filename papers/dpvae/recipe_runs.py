"""The arguments of ``dpvae train`` that make a run of a recipe, in any number of steps."""

from collections.abc import Sequence

from pyro_dpvae.recipes import named_recipe

__all__ = ["recipe_arguments"]


def recipe_arguments(
    recipe: str, *, seed: int, steps: int, overrides: Sequence[str]
) -> tuple[str, ...]:
    """Return the arguments of a recipe's run, with its schedules in proportion to the steps.

    Args:
        recipe: its name.
        seed: of the run.
        steps: how many it takes.
        overrides: of options, each ``key=value``; they go before the schedules in proportion.

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
