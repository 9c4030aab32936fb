"""Rollback of interrupted changes, and batch-norm statistics over ranks."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from pyro_dpvae._randomness import random_state, set_random_state
from pyro_dpvae._ranks import average_

__all__ = ["average_norms", "undone_if_interrupted"]


@contextmanager
def undone_if_interrupted(*modules: nn.Module) -> Iterator[None]:
    """Restore modules and random states if the body raises or is interrupted."""
    states = [
        {
            name: value.clone() if hasattr(value, "clone") else value
            for name, value in module.state_dict().items()
        }
        for module in modules
    ]
    drawn = random_state()
    try:
        yield
    except BaseException:  # an interrupt as well
        for module, state in zip(modules, states, strict=True):
            module.load_state_dict(state)
        set_random_state(drawn)
        raise


def average_norms(*modules: nn.Module) -> None:
    """Average batch-norm running statistics over ranks (each rank has seen only its own shard).

    Their updates are linear, so that averaging now equals averaging after every step.
    """
    norms = {
        layer: None
        for module in modules
        for layer in module.modules()
        if isinstance(layer, nn.modules.batchnorm._NormBase)
    }
    statistics = [(layer.running_mean, layer.running_var) for layer in norms]
    average_([one for pair in statistics for one in pair if one is not None])
