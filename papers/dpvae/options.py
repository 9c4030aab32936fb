"""The options of ``python -m papers.dpvae table1`` and ``figures``."""

from collections.abc import Callable
from typing import Any

from papers.dpvae.budgets import BUDGETS
from pyro_dpvae._parser import CommandParser
from pyro_dpvae.cli.options import declare
from pyro_dpvae.recipes.dpvae import DPVAE_DATA_SETS, REGULARIZERS

__all__ = ["IMAGES", "MOONS", "PROGRAM", "TARGETS"]

PROGRAM = "python -m papers.dpvae"

MOONS = "two-moons"
"""The data set of figures 1 and 3."""

IMAGES = tuple(name for name in DPVAE_DATA_SETS if name != MOONS)
"""The data sets of the other figures."""


def _table1() -> CommandParser:
    parser = CommandParser(
        prog=f"{PROGRAM} table1",
        description="Train the models of the paper's Table 1 with and without the decoupled "
        "prior, measure them, and write OUT/table.md and OUT/table.json. An interrupted command "
        "continues when it is given again; finished runs are not repeated.",
    )
    parser.add_argument(
        "--data", type=str, default="mnist", help=f"one of {', '.join(DPVAE_DATA_SETS)}"
    )
    parser.add_argument(
        "--source",
        type=str | None,
        help="other data of the same kind, by name or as a file, on which the recipes of --data "
        "train, such as fashion-mnist or a sample of SVHN (default: --data)",
    )
    parser.add_argument(
        "--variant",
        choices=["paper", "authors-code"],
        default="paper",
        help="which recipes to train: the paper's, where a pair differs in its prior alone, or "
        "the configurations that the authors published (for mnist)",
    )
    parser.add_argument(
        "--regularizers",
        type=str | None,
        help=f"some of {','.join(REGULARIZERS)} (default: all)",
    )
    amount = parser.add_argument_group("how much")
    _add_amount(amount)
    amount.add_argument("--seeds", type=int | None, help="number of seeds, counted from 0")
    for name, what in (
        ("nll_samples", "importance samples of z for the likelihood of one item"),
        ("nll_data", "number of held-out items whose likelihood is measured"),
        ("latent_samples", "samples for divergences and leakage"),
        ("images", "number of samples, and of reference images, in feature space"),
    ):
        amount.add_argument(f"--{name.replace('_', '-')}", type=int | None, help=what)
    place = parser.add_argument_group("where")
    _add_place(place, None, "reproductions/table1-SOURCE")
    features = parser.add_argument_group("features of images")
    features.add_argument(
        "--inception",
        type=str | None,
        help="the file with the weights of FID's Inception network (default: torch.hub's cache; "
        "without the weights, a classifier of the data set replaces the network)",
    )
    features.add_argument(
        "--download",
        action="store_true",
        help="download the data set and those weights (91 MB) if they are missing",
    )
    return parser


def _figures() -> CommandParser:
    parser = CommandParser(
        prog=f"{PROGRAM} figures",
        description="Draw the paper's figures as OUT/figure-N.png and .pdf: 1 and 3, pockets and "
        "leaks on two moons; 4, leakage; 5, samples of the prior and of its pockets; 6, "
        "traversals between held-out images (7 is the same on CelebA); 8, traversals of single "
        "coordinates. Missing runs are trained first. An interrupted command continues when it "
        "is given again.",
    )
    parser.add_argument(
        "--data",
        type=str,
        default="mnist",
        help=f"the data set of figures 4 to 8, one of {', '.join(IMAGES)}",
    )
    parser.add_argument(
        "--variant",
        choices=["paper", "authors-code"],
        default="paper",
        help="which recipes to train for figures 4 to 8 (authors-code: for mnist)",
    )
    parser.add_argument("--only", type=str | None, help="some figures, such as 1,3 (default: all)")
    parser.add_argument(
        "--runs",
        type=str | None,
        help=f"the output folder of '{PROGRAM} table1'; its finished runs are used and not "
        "trained again",
    )
    _add_amount(parser)
    parser.add_argument("--seed", type=int, default=0, help="random seed of runs and samples")
    parser.add_argument("--download", action="store_true", help="download missing data sets")
    _add_place(parser, "reproductions/figures", "reproductions/figures")
    return parser


TARGETS: dict[str, Callable[[], CommandParser]] = {"table1": _table1, "figures": _figures}
"""What can be reproduced, with the parser of its options."""


def _add_amount(parser: Any) -> None:
    """Add the options that say how long runs train, to a parser or a group of one."""
    hour = BUDGETS["hour"]
    parser.add_argument(
        "--budget",
        type=str | None,
        help=f"paper ({BUDGETS['paper'].steps:,} steps), or hour ({hour.steps:,} steps at another "
        "learning rate, and fewer samples); single options override it (default: the earlier "
        "request in OUT, otherwise hour on a CPU and paper on a GPU)",
    )
    parser.add_argument(
        "--steps",
        type=int | None,
        help="steps of each run; with authors-code, those of a configuration of 100,000 steps",
    )
    parser.add_argument(
        "--override",
        action="append",
        type=str,
        default=[],
        help="KEY=VALUE, a training option for all runs, such as batch_size=50; may be repeated",
    )


def _add_place(parser: Any, out: str | None, default: str) -> None:
    """Add the options that say where runs are trained and stored.

    Args:
        parser: a parser or a group of one.
        out: the default of ``--out``.
        default: the same, as the help shows it.
    """
    parser.add_argument("--root", type=str | None, help="the folder that holds data sets by name")
    declare(parser, ["device"])
    parser.add_argument(
        "--jobs",
        type=int | None,
        help="number of processes at once (default: one per processor, or 12 on a GPU)",
    )
    parser.add_argument(
        "--out", type=str | None, default=out, help=f"the output folder (default: {default})"
    )
