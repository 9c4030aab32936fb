"""The device of a command, and the line that says which one ``auto`` has chosen."""

import sys

import torch

from pyro_dpvae._devices import choose_device

__all__ = ["chosen_device", "in_words"]


def chosen_device(name: str) -> torch.device:
    """Return the device of a name; of ``auto``, say on standard error which one it is.

    Raises:
        ValueError: if there is no such device on this machine.
    """
    device = choose_device(name)
    if name == "auto":
        print(f"device: {in_words(device, name)}", file=sys.stderr)
    return device


def in_words(device: torch.device, name: str) -> str:
    """Return a device as messages name it; of ``auto``, with the name that has chosen it."""
    return f"{device} (chosen by --device auto)" if name == "auto" else str(device)
