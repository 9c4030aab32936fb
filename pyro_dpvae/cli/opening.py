"""The options of commands that open a trained run, and the run that they name."""

import torch
from jsonargparse import ArgumentParser, Namespace

from pyro_dpvae._checks import check_choice
from pyro_dpvae.cli.devices import add_device, chosen_device
from pyro_dpvae.cli.resume import which_checkpoint
from pyro_dpvae.recipes import SavedSystem, open_system
from pyro_dpvae.runs import RunFolder

__all__ = ["add_data", "add_run", "add_weights", "open_run", "opened_with"]


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


def opened_with(options: Namespace) -> tuple[torch.device, str | int, str | None]:
    """Return device, checkpoint and weights of parsed options."""
    which = which_checkpoint(options.checkpoint)
    if options.weights is not None:
        check_choice("weights", options.weights, ("raw", "average"))
    return chosen_device(options.device), which, options.weights


def open_run(options: Namespace) -> SavedSystem:
    """Open the run of parsed options."""
    RunFolder.open(options.run)  # before a device is chosen, and named
    device, which, weights = opened_with(options)
    return open_system(options.run, device, checkpoint=which, weights=weights)
