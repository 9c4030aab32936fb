"""The options of ``dpvae plot``."""

from collections.abc import Sequence

from jsonargparse import Namespace

from pyro_dpvae.cli.options.runs import add_data, add_run
from pyro_dpvae.cli.parser import CommandParser

__all__ = ["parsed"]


def parsed(arguments: Sequence[str]) -> Namespace:
    """Return the options of a command line."""
    parser = CommandParser(
        prog="dpvae plot",
        description="Draw a trained run: samples of the prior, its pockets and its leaks; latent "
        "space; traversals, of a ladder also layer by layer, and draws of each layer's "
        "clusters; leakage. Pictures lie in RUN/plots, as PNG and PDF.",
    )
    add_run(parser)
    parser.add_argument("--count", type=int, default=100, help="samples in a panel")
    add_data(parser)
    parser.add_argument("--seed", type=int, default=0, help="of samples and pairs")
    parser.add_argument("--out", type=str | None, help="the folder (default: RUN/plots)")
    return parser.parse_args(list(arguments))
