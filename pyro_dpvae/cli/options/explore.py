"""The options of ``dpvae explore``."""

from collections.abc import Sequence

from jsonargparse import Namespace

from pyro_dpvae.cli.options.runs import add_data, add_run
from pyro_dpvae.cli.parser import CommandParser

__all__ = ["parsed"]


def parsed(arguments: Sequence[str]) -> Namespace:
    """Return the options of a command line."""
    parser = CommandParser(
        prog="dpvae explore",
        description="Serve a page, to this machine alone, on which one moves a point through "
        "generation space and representation space and sees what it decodes to, the densities of "
        "prior and aggregate posterior, pockets and leaks. Ctrl-C ends it.",
    )
    add_run(parser)
    add_data(parser)
    parser.add_argument("--seed", type=int, default=0, help="of the samples that are shown")
    parser.add_argument("--port", type=int, default=0, help="of 127.0.0.1 (default: a free one)")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    return parser.parse_args(list(arguments))
