"""``dpvae recipes``: the systems of the papers by name, and where their numbers come from."""

from jsonargparse import Namespace

from pyro_dpvae.recipes.named import RECIPES, named_recipe
from pyro_dpvae.recipes.recipe import Recipe

__all__ = ["main"]


def main(options: Namespace) -> int:
    """List the recipes, or show one; returns the exit status."""
    name = options.name
    if name is None:
        width = max(map(len, RECIPES))
        print("\n".join(f"{key:{width}}  {found.title}" for key, found in RECIPES.items()))
        return 0
    print(_shown(name, named_recipe(name)))
    return 0


def _shown(name: str, recipe: Recipe) -> str:
    numbers = {option: str(value) for option, value in recipe.numbers()}
    widths = max(map(len, numbers)), max(map(len, numbers.values()))
    lines = [f"{name}: {recipe.title}"]
    for known, heading in ((True, "from a source"), (False, "unknown, and chosen")):
        lines += ["", f"{heading}:"]
        before = ""
        for option, value in numbers.items():
            origin, is_known = recipe.origin(option)
            if is_known == known:
                where = "the same" if origin == before else origin
                lines.append(f"  {option:{widths[0]}}  {value:{widths[1]}}  {where}")
                before = origin
    return "\n".join([*lines, "", f"train it: dpvae train --recipe {name}"])
