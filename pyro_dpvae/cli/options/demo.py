"""The options of ``dpvae demo``."""

from collections.abc import Sequence

from jsonargparse import Namespace

from pyro_dpvae.cli.parser import CommandParser

__all__ = ["parsed"]


def parsed(arguments: Sequence[str]) -> Namespace:
    """Return the options of a command line."""
    parser = CommandParser(
        prog="dpvae demo",
        description="Train a beta-VAE and a beta-dpVAE on two moons; draw and measure both.",
    )
    parser.add_argument("--out", type=str, default="demo", help="the folder for the picture")
    parser.add_argument("--beta", type=float, default=2.0, help="the weight of the rate")
    parser.add_argument("--steps", type=int, default=2500, help="training steps of each")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and samples")
    return parser.parse_args(list(arguments))
