"""Random states of one process and of all ranks, for checkpoints."""

import hashlib
import random
from typing import Any, final

import numpy as np
import pyro
import torch

from pyro_dpvae._ranks import gather_objects, ranks

__all__ = ["RandomStates", "noise_seed", "random_state", "set_random_state"]


def noise_seed(seed: int, *, step: int = 0) -> int:
    """Return the noise seed of this rank from a step on; rank zero starts with the run's seed.

    Args:
        seed: random seed of the run.
        step: the step after which the noise is drawn.
    """
    rank = ranks().index
    if rank == 0 and step == 0:
        return seed
    digest = hashlib.sha256(f"{seed} {step} {rank}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


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


@final
class RandomStates:
    """The random states of all ranks.

    Args:
        seed: random seed of the run, used if the number of ranks has changed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all ranks; all ranks must call it."""
        return {"ranks": gather_objects(random_state())}

    def restore(self, state: dict[str, Any], *, step: int) -> bool:
        """Restore this rank's state; return True if it was seeded anew.

        A rank is seeded anew if the number of ranks has changed.
        """
        here = ranks()
        if len(state["ranks"]) != here.count:
            pyro.set_rng_seed(noise_seed(self.seed, step=step))
            return True
        set_random_state(state["ranks"][here.index])
        return False
