"""The options that ``dpvae reproduce table1`` and ``figures`` share."""

from typing import Any

from pyro_dpvae.cli.options.runs import add_device
from pyro_dpvae.reproduction.budgets import BUDGETS

__all__ = ["add_amount", "add_place"]


def add_amount(parser: Any) -> None:
    """Add the options of how much is trained, to a parser or a group of one."""
    hour = BUDGETS["hour"]
    parser.add_argument(
        "--budget",
        type=str | None,
        help=f"paper ({BUDGETS['paper'].steps:,} steps), or hour ({hour.steps:,} steps at another "
        "learning rate, and fewer draws); single options go before it (default: what was asked in "
        "OUT before, else hour on a CPU, paper on a GPU)",
    )
    parser.add_argument(
        "--steps",
        type=int | None,
        help="of each run; of authors-code those of a configuration of 100,000",
    )
    parser.add_argument(
        "--override",
        action="append",
        type=str,
        default=[],
        help="KEY=VALUE, an option of all runs, such as batch_size=50; may be repeated",
    )


def add_place(parser: Any, out: str | None, default: str) -> None:
    """Add the options of where runs are.

    Args:
        parser: or a group of one.
        out: the folder, if nothing else is asked for.
        default: the same, in words.
    """
    parser.add_argument("--root", type=str | None, help="the folder that holds data sets by name")
    add_device(parser)
    parser.add_argument(
        "--jobs", type=int | None, help="runs at once (default: one per processor, or 12 on a GPU)"
    )
    parser.add_argument(
        "--out", type=str | None, default=out, help=f"the folder (default: {default})"
    )
