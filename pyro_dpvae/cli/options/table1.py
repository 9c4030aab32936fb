"""The options of ``dpvae reproduce table1``."""

from collections.abc import Sequence

from jsonargparse import Namespace

from pyro_dpvae.cli.options.studies import add_amount, add_place
from pyro_dpvae.cli.parser import CommandParser
from pyro_dpvae.recipes.dpvae import DPVAE_DATA_SETS, REGULARIZERS

__all__ = ["parsed"]


def parsed(arguments: Sequence[str]) -> Namespace:
    """Return the options of a command line."""
    parser = CommandParser(
        prog="dpvae reproduce table1",
        description="Train the models of the paper's Table 1 with and without the decoupled "
        "prior, measure them, and write OUT/table.md and OUT/table.json. Interrupted, the same "
        "command goes on; what is finished is not done again.",
    )
    parser.add_argument(
        "--data", type=str, default="mnist", help=f"one of {', '.join(DPVAE_DATA_SETS)}"
    )
    parser.add_argument(
        "--variant",
        choices=["paper", "authors-code"],
        default="paper",
        help="of the recipes: one set of numbers for each pair, or the published configurations "
        "(of mnist)",
    )
    parser.add_argument(
        "--regularizers",
        type=str | None,
        help=f"some of {','.join(REGULARIZERS)} (default: all)",
    )
    amount = parser.add_argument_group("how much")
    add_amount(amount)
    amount.add_argument("--seeds", type=int | None, help="how many, from 0 on")
    for name, what in (
        ("nll_samples", "draws of z for each datum's likelihood"),
        ("nll_data", "held-out data whose likelihood is measured"),
        ("latent_samples", "draws for divergences and leakage"),
        ("images", "samples and reference images in feature space"),
    ):
        amount.add_argument(f"--{name.replace('_', '-')}", type=int | None, help=what)
    place = parser.add_argument_group("where")
    add_place(place, None, "reproductions/table1-DATA")
    features = parser.add_argument_group("features of images")
    features.add_argument(
        "--inception",
        type=str | None,
        help="the file of FID's network weights (default: torch.hub's cache; where there are "
        "none, a classifier of the data set takes their place)",
    )
    features.add_argument(
        "--download",
        action="store_true",
        help="fetch the data set and those weights (91 MB) if they are missing",
    )
    return parser.parse_args(list(arguments))
