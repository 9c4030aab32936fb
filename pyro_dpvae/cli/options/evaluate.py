"""The options of ``dpvae evaluate``."""

from collections.abc import Sequence

from jsonargparse import Namespace

from pyro_dpvae.cli.options.measuring import add_measuring
from pyro_dpvae.cli.options.runs import add_data, add_run
from pyro_dpvae.cli.parser import CommandParser

__all__ = ["parsed"]


def parsed(arguments: Sequence[str]) -> Namespace:
    """Return the options of a command line."""
    parser = CommandParser(
        prog="dpvae evaluate",
        description="Measure a trained run and keep the metrics in RUN/evaluation.json. What is "
        "there already, of the same checkpoint and numbers, is not measured again.",
    )
    add_run(parser)
    add_data(parser)
    add_measuring(parser)
    return parser.parse_args(list(arguments))
