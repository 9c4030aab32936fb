"""The options of ``dpvae report``."""

from collections.abc import Sequence

from jsonargparse import Namespace

from pyro_dpvae.cli.options.runs import add_data, add_weights
from pyro_dpvae.cli.parser import CommandParser

__all__ = ["parsed"]


def parsed(arguments: Sequence[str]) -> Namespace:
    """Return the options of a command line."""
    parser = CommandParser(
        prog="dpvae report",
        description="Write one page of HTML of a run, or of several side by side: configuration, "
        "curves of training, metrics with intervals and differences from the first run, figures. "
        "The page needs no network and no other file.",
    )
    parser.add_argument("runs", nargs="+", type=str, help="run folders")
    parser.add_argument(
        "--out", type=str | None, help="the file (default: RUN/report.html, or report.html here)"
    )
    parser.add_argument(
        "--seeds",
        action="store_true",
        help="take runs that differ in their seed alone as repetitions of one system, and draw "
        "the first of each",
    )
    add_weights(parser)
    add_data(parser)
    parser.add_argument("--count", type=int, default=100, help="samples in a panel")
    parser.add_argument("--seed", type=int, default=0, help="of what figures draw")
    parser.add_argument("--no-figures", action="store_true", help="leave figures out")
    return parser.parse_args(list(arguments))
