"""The trained run that the options of a command name."""

import torch
from jsonargparse import Namespace

from pyro_dpvae._checks import check_choice
from pyro_dpvae.cli.devices import chosen_device
from pyro_dpvae.recipes import Run, open_run
from pyro_dpvae.runs import RunFolder

__all__ = ["opened_run", "opened_with", "which_checkpoint"]


def which_checkpoint(which: str) -> str | int:
    """Return which checkpoint a command line asks for.

    Raises:
        ValueError: if it is neither ``"last"`` nor ``"best"`` nor a step.

    Example:
        >>> which_checkpoint("best"), which_checkpoint("1000")
        ('best', 1000)
    """
    if which in ("last", "best"):
        return which
    if not (which.isascii() and which.isdigit() and len(which) < 10):
        raise ValueError(f"checkpoint must be last, best or a step; got {which!r}")
    return int(which)


def opened_with(options: Namespace) -> tuple[torch.device, str | int, str | None]:
    """Return device, checkpoint and weights of parsed options."""
    which = which_checkpoint(options.checkpoint)
    if options.weights is not None:
        check_choice("weights", options.weights, ("raw", "average"))
    return chosen_device(options.device), which, options.weights


def opened_run(options: Namespace) -> Run:
    """Open the run of parsed options."""
    RunFolder.open(options.run)  # before a device is chosen, and named
    device, which, weights = opened_with(options)
    return open_run(options.run, device, checkpoint=which, weights=weights)
