"""The options of ``dpvae compare``."""

from collections.abc import Sequence

from jsonargparse import Namespace

from pyro_dpvae.cli.options.measuring import add_measuring
from pyro_dpvae.cli.options.runs import add_device
from pyro_dpvae.cli.parser import CommandParser

__all__ = ["parsed"]


def parsed(arguments: Sequence[str]) -> Namespace:
    """Return the options of a command line.

    Raises:
        ValueError: for a single run, or for options of an evaluation without ``--evaluate``.
    """
    parser, measuring = _parser()
    options = parser.parse_args(list(arguments))
    if len(options.runs) < 2:
        raise ValueError(f"a comparison needs at least two runs, got {len(options.runs)}")
    for name in measuring:
        if not options.evaluate and options[name] != parser.get_default(name):
            option = f"--{name.replace('_', '-')}"
            raise ValueError(
                f"options of an evaluation need --evaluate, got {option} without it; add "
                f"--evaluate, or leave {option} out"
            )
    return options


def _parser() -> tuple[CommandParser, list[str]]:
    """Return the parser, and the names of the options that an evaluation alone has."""
    parser = CommandParser(
        prog="dpvae compare",
        description="Compare evaluated runs with the first: values with standard errors, then "
        "differences with intervals of 95 %, paired where the data or the seeds are the same.",
    )
    parser.add_argument("runs", nargs="+", type=str, help="run folders")
    parser.add_argument(
        "--seeds",
        action="store_true",
        help="take runs that differ in their seed alone as repetitions of one system",
    )
    parser.add_argument(
        "--evaluate",
        action="store_true",
        help="measure first what 'dpvae evaluate' has not yet measured of the runs; the options "
        "below are of this",
    )
    own = {action.dest for action in parser._actions}
    add_measuring(parser)
    parser.add_argument("--root", type=str | None, help="the folder that holds data sets by name")
    add_device(parser)
    return parser, [action.dest for action in parser._actions if action.dest not in own]
