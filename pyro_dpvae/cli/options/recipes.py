"""The options of ``dpvae recipes``."""

from collections.abc import Sequence

from jsonargparse import Namespace

from pyro_dpvae.cli.parser import CommandParser

__all__ = ["parsed"]


def parsed(arguments: Sequence[str]) -> Namespace:
    """Return the options of a command line."""
    parser = CommandParser(
        prog="dpvae recipes",
        description="List the systems of the papers, one a line; or show the numbers of one, with "
        "their sources, and what is unknown and was chosen instead.",
    )
    parser.add_argument("name", type=str | None, nargs="?", help="the recipe to show")
    return parser.parse_args(list(arguments))
