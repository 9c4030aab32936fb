"""The random states of a process and of all ranks, as a checkpoint holds them."""

import hashlib
import random
from typing import Any, final

import numpy as np
import pyro
import torch

from pyro_dpvae._ranks import gather_objects, ranks

__all__ = ["RandomStates", "noise_seed", "random_state", "set_random_state"]


def noise_seed(seed: int, *, step: int = 0) -> int:
    """Return the seed of this rank's noise from a step on; that of the first at step 0 is its own.

    Args:
        seed: of the run.
        step: after which the draws come.
    """
    rank = ranks().index
    if rank == 0 and step == 0:
        return seed
    digest = hashlib.sha256(f"{seed} {step} {rank}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def random_state() -> dict[str, Any]:
    """Return the states of Python's, numpy's and PyTorch's generators, CUDA's where it is used."""
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
    """Take on the states of :func:`random_state`, CUDA's where it is used."""
    version, python, gauss = state["python"]
    random.setstate((version, tuple(python.tolist()), gauss))
    kind, numpy, *rest = state["numpy"]
    np.random.set_state((kind, numpy.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@final
class RandomStates:
    """The random states of all ranks, saved by all and loaded by each.

    Args:
        seed: of the run, from which ranks draw anew if there are more or fewer than before.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def state_dict(self) -> dict[str, Any]:
        """Return the states, rank by rank; all ranks must call it."""
        return {"ranks": gather_objects(random_state())}

    def restore(self, state: dict[str, Any], *, step: int) -> bool:
        """Take on the state of this rank; returns whether it draws anew instead.

        So it does among another number of ranks than those of the state.
        """
        here = ranks()
        if len(state["ranks"]) != here.count:
            pyro.set_rng_seed(noise_seed(self.seed, step=step))
            return True
        set_random_state(state["ranks"][here.index])
        return False
