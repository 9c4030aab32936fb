"""The device that a command works on."""

import os

import torch

from pyro_dpvae._ranks import ranks

__all__ = ["check_device", "own_device"]


def check_device(name: str) -> torch.device:
    """Return the device of a name.

    Raises:
        ValueError: if it is no device, or not on this machine.
    """
    try:
        device = own_device(torch.device(name))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device must be one that works here, such as cpu; got {name!r}: {reason}"
        ) from error
    return device


def own_device(device: torch.device) -> torch.device:
    """Return a device as this process uses it: of several, each takes a GPU of its own.

    Raises:
        ValueError: if several processes are to share a GPU.
    """
    if device.type != "cuda":
        return device
    if ranks().count > 1:
        if device.index is not None:
            raise ValueError(
                f"each process of torchrun takes a GPU of its own, got {device} for all; use "
                "--device cuda"
            )
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    if device.index is not None:  # else it is the present one, which cannot be set without one
        torch.cuda.set_device(device)
    return device
