"""The options of how data are read, of ``dpvae train`` and ``dpvae data``."""

from typing import Any

__all__ = ["add_reading"]


def add_reading(parser: Any) -> None:
    """Add where data sets by name are, and how files are read, to a parser or a group of one."""
    parser.add_argument("--root", type=str | None, help="the folder that holds data sets by name")
    parser.add_argument(
        "--layout",
        type=str | None,
        help="what the items of a file are: images, sequences or vectors (default: decided by "
        "shape and type, and said)",
    )
    parser.add_argument(
        "--held-out",
        type=float | str | None,
        help="the share of a file without splits that is held out at random, or none (default: "
        "0.1)",
    )
    parser.add_argument(
        "--background",
        type=str | None,
        help="what shows where images of a folder are transparent: white or black (default: "
        "white)",
    )
