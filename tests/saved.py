"""What a checkpoint's file holds, read without the library."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

__all__ = ["last_file", "saved_tensors", "saved_weights"]


def last_file(run: Path) -> Path:
    """Return the file of the last checkpoint of a run."""
    return max((run / "checkpoints").glob("*.safetensors"))


def saved_tensors(file: Path, prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors of a checkpoint whose names begin so, by the rest of their names."""
    found = load_file(file)
    return {k.removeprefix(prefix): t for k, t in found.items() if k.startswith(prefix)}


def saved_weights(run: Path) -> dict[str, bytes]:
    """Return the bytes of the weights of a run's last checkpoint."""
    found = saved_tensors(last_file(run), "weights.")
    assert found
    return {k: t.reshape(-1).view(torch.uint8).numpy().tobytes() for k, t in found.items()}
