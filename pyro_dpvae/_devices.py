"""Which device a run uses: the only place that knows what ``auto`` means."""

import os

import torch
import torch.distributed as dist
from torch import nn

from pyro_dpvae._ranks import ranks

__all__ = ["choose_device", "device_of", "own_device"]


def choose_device(
    device: str | torch.device = "auto", *, present: torch.device | None = None
) -> torch.device:
    """Return the device of a name, as this process uses it.

    ``auto`` is CUDA where PyTorch finds a GPU for each process on this machine, otherwise the CPU.

    Args:
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` ..., or a device.
        present: where the parts are already; ``auto`` leaves them on an accelerator.

    Raises:
        ValueError: if there is no such device on this machine, or several processes are to share a
            GPU.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if device == "auto":
        if present is not None and present.type != "cpu":
            return present
        device = _automatic()
    try:
        found = own_device(torch.device(device))
        if torch.empty(0, device=found).is_meta:
            raise ValueError("a meta device holds no numbers")
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            "device must be auto, cpu, or a device that PyTorch can use on this machine, such as "
            f"cuda or cuda:1; got {str(device)!r}: {reason}; use auto"
        ) from error
    return found


def device_of(module: nn.Module) -> torch.device:
    """Return the device of a module's first parameter, the CPU if it has none."""
    return next((tensor.device for tensor in module.parameters()), torch.device("cpu"))


def own_device(device: torch.device) -> torch.device:
    """Return a device as this process uses it: of several, each takes a GPU of its own.

    Raises:
        ValueError: if several processes are to share a GPU.
    """
    if device.type != "cuda":
        return device
    if ranks().count > 1:
        own = int(os.environ.get("LOCAL_RANK", ranks().index))
        if device.index not in (None, own):
            raise ValueError(
                f"each process of torchrun takes a GPU of its own, and {device} is not that of "
                f"process {own}; use cuda"
            )
        device = torch.device("cuda", own)
    if device.index is not None:  # else it is the present one, which cannot be set without one
        torch.cuda.set_device(device)
    return device


def _automatic() -> str:
    processes = 1
    if ranks().count > 1:
        if "cuda:nccl" not in dist.get_backend_config():  # gloo alone is slow on GPUs
            return "cpu"
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", ranks().count))
    enough = torch.cuda.is_available() and torch.cuda.device_count() >= processes
    return "cuda" if enough else "cpu"
