"""The options of ``dpvae data``."""

from collections.abc import Sequence

from jsonargparse import Namespace

from pyro_dpvae.cli.options.reading import add_reading
from pyro_dpvae.cli.parser import CommandParser

__all__ = ["parsed"]


def parsed(arguments: Sequence[str]) -> Namespace:
    """Return the options of a command line."""
    parser = CommandParser(
        prog="dpvae data",
        description="Show how a data set is read: splits, shape, type and range of its numbers, "
        "labels, factors, and what the numbers are taken for. Draws 32 of its items. Nothing is "
        "trained.",
    )
    parser.add_argument("data", type=str, help="a data set's name, a file, or a folder of images")
    add_reading(parser)
    parser.add_argument(
        "--out",
        type=str | None,
        help="the picture of 32 training items (default: NAME-data.png, here)",
    )
    return parser.parse_args(list(arguments))
