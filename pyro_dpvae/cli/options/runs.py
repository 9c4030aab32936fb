"""The options of commands that open a trained run."""

from typing import Any

from jsonargparse import ArgumentParser

__all__ = ["add_data", "add_device", "add_run", "add_weights"]


def add_device(parser: Any) -> None:
    """Add ``--device`` to a parser or a group of one."""
    parser.add_argument(
        "--device",
        type=str,
        default="auto",
        help="auto (a GPU if CUDA finds one, otherwise the CPU), cpu, cuda, cuda:1 ...",
    )


def add_run(parser: ArgumentParser) -> None:
    """Add the run folder, which of its checkpoints and weights, and the device."""
    parser.add_argument("run", type=str, help="the run folder")
    add_weights(parser)


def add_weights(parser: ArgumentParser) -> None:
    """Add which checkpoint and weights of a run are taken, and the device."""
    parser.add_argument(
        "--checkpoint",
        type=str,
        default="last",
        help="last, best (of the best score in what the run's --monitor watches), or a step",
    )
    parser.add_argument(
        "--weights",
        type=str | None,
        help="raw, as training left them, or average, their moving average (default: average, if "
        "the run has one)",
    )
    add_device(parser)


def add_data(parser: ArgumentParser) -> None:
    """Add where the run's data are."""
    parser.add_argument("--root", type=str | None, help="the folder that holds data sets by name")
    parser.add_argument(
        "--data", type=str | None, help="the file or folder of the run's data, if it has moved"
    )
