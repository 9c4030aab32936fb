"""Random seeds, and random states to restore."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "forked_rng",
    "noise_seed",
    "noise_state",
    "random_state",
    "seed_of",
    "set_noise_state",
    "set_random_state",
]


def seed_of(seed: int, *key: int) -> int:
    """Return a seed for one of many draws with a common seed, such as one per batch.

    Args:
        seed: the common seed.
        key: numbers from 0 that identify the draw.

    Example:
        >>> seed_of(0, 1) != seed_of(1, 0) != seed_of(0, 0, 1)
        True
    """
    sequence = np.random.SeedSequence(seed % 2**64, spawn_key=key)
    return int(sequence.generate_state(1, np.uint64)[0])


def noise_seed(seed: int, rank: int = 0, *, step: int = 0) -> int:
    """Return a rank's noise seed from a step on; rank zero starts with the run's seed.

    Args:
        seed: random seed of the run.
        rank: number of the rank.
        step: the step after which the noise is drawn.
    """
    if rank == 0 and step == 0:
        return seed
    digest = hashlib.sha256(f"{seed} {step} {rank}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


@contextmanager
def forked_rng(seed: int | None = None) -> Iterator[None]:
    """Restore the states of PyTorch's generators, and of CUDA's if in use, at the end.

    Args:
        seed: random seed inside the context; None keeps the states.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        if seed is not None:
            # torch.manual_seed would also seed devices that start later, after this context.
            torch.default_generator.manual_seed(seed)
            if devices:
                torch.cuda.manual_seed_all(seed)
        yield


def noise_state() -> list[Tensor]:
    """Return the states of PyTorch's generators, for the CPU and for CUDA devices in use."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *cuda]


def set_noise_state(state: list[Tensor]) -> None:
    """Set the states of :func:`noise_state`."""
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state_all(state[1:])


def random_state() -> dict[str, Any]:
    """Return the states of Python's, numpy's and PyTorch's generators, and CUDA's if in use."""
    version, python, gauss = random.getstate()
    kind, numpy, *rest = np.random.get_state(legacy=True)
    state = {
        "python": (version, torch.tensor(python), gauss),
        "numpy": (kind, torch.tensor(np.asarray(numpy, dtype=np.int64)), *rest),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Set the states of :func:`random_state`; CUDA's only where CUDA is available."""
    version, python, gauss = state["python"]
    random.setstate((version, tuple(python.tolist()), gauss))
    kind, numpy, *rest = state["numpy"]
    np.random.set_state((kind, numpy.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
