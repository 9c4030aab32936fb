"""The options of ``dpvae sample``."""

from collections.abc import Sequence

from jsonargparse import Namespace

from pyro_dpvae.cli.options.runs import add_run
from pyro_dpvae.cli.parser import CommandParser

__all__ = ["parsed"]


def parsed(arguments: Sequence[str]) -> Namespace:
    """Return the options of a command line."""
    parser = CommandParser(
        prog="dpvae sample",
        description="Draw z from the prior of a run and decode it to the mean of p(x|z), or to a "
        "draw from it where the decoder is autoregressive.",
    )
    add_run(parser)
    parser.add_argument("--count", type=int, default=100, help="how many samples")
    parser.add_argument("--seed", type=int, default=0, help="of the samples")
    parser.add_argument(
        "--out",
        type=str | None,
        help="the picture; the array lies beside it as .npy (default: RUN/samples.png)",
    )
    return parser.parse_args(list(arguments))
