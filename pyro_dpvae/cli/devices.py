"""The device of a command, and its name in messages."""

import sys

import torch

from pyro_dpvae._devices import choose_device

__all__ = ["chosen_device", "in_words"]


def chosen_device(name: str) -> torch.device:
    """Return the device of a name; for ``auto``, print the chosen device on standard error.

    Raises:
        ValueError: if there is no such device on this machine.
    """
    device = choose_device(name)
    if name == "auto":
        print(f"device: {in_words(device, name)}", file=sys.stderr)
    return device


def in_words(device: torch.device, name: str) -> str:
    """Return the name of a device for messages, and say if ``auto`` has chosen it."""
    return f"{device} (chosen by --device auto)" if name == "auto" else str(device)
