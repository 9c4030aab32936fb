"""The options of ``dpvae reproduce figures``."""

from collections.abc import Sequence

from jsonargparse import Namespace

from pyro_dpvae.cli.options.studies import add_amount, add_place
from pyro_dpvae.cli.parser import CommandParser
from pyro_dpvae.recipes.dpvae import DPVAE_DATA_SETS

__all__ = ["IMAGES", "MOONS", "parsed"]

MOONS = "two-moons"
"""The data set of figures 1 and 3."""

IMAGES = tuple(name for name in DPVAE_DATA_SETS if name != MOONS)
"""The data sets of the other figures."""


def parsed(arguments: Sequence[str]) -> Namespace:
    """Return the options of a command line."""
    parser = CommandParser(
        prog="dpvae reproduce figures",
        description="Draw the paper's figures, as OUT/figure-N.png and .pdf: 1 and 3, pockets and "
        "leaks on two moons; 4, leakage; 5, samples of prior and pockets; 6, traversals between "
        "data (7 is the same on CelebA); 8, traversals of single coordinates. What is missing of "
        "the runs is trained before. Interrupted, the same command goes on.",
    )
    parser.add_argument(
        "--data", type=str, default="mnist", help=f"of figures 4 to 8: {', '.join(IMAGES)}"
    )
    parser.add_argument(
        "--variant",
        choices=["paper", "authors-code"],
        default="paper",
        help="of the recipes of figures 4 to 8 (authors-code: of mnist)",
    )
    parser.add_argument("--only", type=str | None, help="some figures, such as 1,3 (default: all)")
    parser.add_argument(
        "--runs",
        type=str | None,
        help="the folder of a study with such runs, as 'dpvae reproduce table1' leaves them; what "
        "is finished there is not trained",
    )
    add_amount(parser)
    parser.add_argument("--seed", type=int, default=0, help="of runs and draws")
    parser.add_argument("--download", action="store_true", help="fetch data that are missing")
    add_place(parser, "reproductions/figures", "reproductions/figures")
    return parser.parse_args(list(arguments))
