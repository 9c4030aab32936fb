"""The option ``--device`` of commands, and the line that says which device it has chosen."""

import sys
from typing import Any

import torch

from pyro_dpvae._devices import choose_device

__all__ = ["add_device", "chosen_device", "in_words"]


def add_device(parser: Any) -> None:
    """Add ``--device`` to a parser or a group of one."""
    parser.add_argument(
        "--device",
        type=str,
        default="auto",
        help="auto (a GPU if CUDA finds one, otherwise the CPU), cpu, cuda, cuda:1 ...",
    )


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
