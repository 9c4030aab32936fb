"""``dpvae recipes``: the systems of the papers by name, and where their numbers come from."""

from collections.abc import Sequence

from pyro_dpvae.cli.parser import CommandParser
from pyro_dpvae.recipes import RECIPES, Recipe, named_recipe

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """List the recipes, or show one; returns the exit status."""
    parser = CommandParser(
        prog="dpvae recipes",
        description="List the systems of the papers, one a line; or show the numbers of one, with "
        "their sources, and what is unknown and was chosen instead.",
    )
    parser.add_argument("name", type=str | None, nargs="?", help="the recipe to show")
    name = parser.parse_args(list(arguments)).name
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
