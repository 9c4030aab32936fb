"""The choice of the device; only this module interprets ``auto``."""

import os

import torch
import torch.distributed as dist
from torch import nn

from pyro_dpvae._ranks import ranks

__all__ = ["choose_device", "device_of", "own_device"]


def choose_device(
    device: str | torch.device = "auto", *, present: torch.device | None = None
) -> torch.device:
    """Return the device for this process.

    ``auto`` is CUDA if PyTorch finds a GPU for each process on this machine, otherwise the CPU.

    Args:
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` ..., or a device.
        present: the current device of the parts; ``auto`` keeps an accelerator.

    Raises:
        ValueError: if the device does not exist here, or several processes would share a GPU.

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
    """Return the device of a module's first parameter; the CPU if it has none."""
    return next((tensor.device for tensor in module.parameters()), torch.device("cpu"))


def own_device(device: torch.device) -> torch.device:
    """Return the device of this process: with several ranks, each has its own GPU.

    Raises:
        ValueError: if several processes would share a GPU.
    """
    if device.type != "cuda":
        return device
    if ranks().count > 1:
        own = int(os.environ.get("LOCAL_RANK", ranks().index))
        if device.index not in (None, own):
            raise ValueError(
                f"{device} is not the GPU of process {own}: each process of torchrun must use "
                "its own; use device='cuda'"
            )
        device = torch.device("cuda", own)
    if device.index is not None:  # without an index it is the current one already
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
