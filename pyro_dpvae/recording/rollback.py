"""Rollback of evaluations, and comparison of results."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

import pyro
import torch
from torch import Tensor, nn

from pyro_dpvae._randomness import forked_rng
from pyro_dpvae.recording.guards import tensors_of

__all__ = ["Attributes", "agree", "rollback", "rollback_modules"]

_CONTAINERS = (list, dict, set, deque)

# Transforms cache under such names, Pyro's modules keep the state of a run there, and Pyro's
# guides make new plates for each run.
_PASSING = ("_cached", "_pyro", "plates")


@contextmanager
def rollback(
    tensors: Iterable[Tensor],
    *,
    generators: Iterable[torch.Generator] = (),
    seed: int | None = None,
) -> Iterator[None]:
    """Restore, at the end, values and gradients of tensors and the states of random generators.

    Gradients are None inside the context.

    Args:
        tensors: the tensors that an evaluation may change in place.
        generators: random generators besides PyTorch's default ones.
        seed: seed of PyTorch's generators inside the context; None keeps their state.
    """
    values = [(tensor, tensor.detach().clone()) for tensor in tensors]
    gradients = [(tensor, tensor.grad) for tensor, _ in values if tensor.is_leaf]
    states = [(generator, generator.get_state()) for generator in generators]
    try:
        with forked_rng(seed):
            for tensor, _ in gradients:
                tensor.grad = None
            yield
    finally:
        for generator, state in states:
            generator.set_state(state)
        with torch.no_grad():
            for tensor, value in values:
                if not torch.equal(tensor, value):
                    tensor.copy_(value)
        for tensor, gradient in gradients:
            tensor.grad = gradient


@contextmanager
def rollback_modules(modules: Sequence[nn.Module], *, seed: int | None = None) -> Iterator[None]:
    """Restore, at the end, what programs may change: modules, their attributes and Pyro's store.

    Args:
        modules: the modules that the programs run.
        seed: as for :func:`rollback`.
    """
    attributes = Attributes(modules)
    stored = pyro.get_param_store()._params.values()
    tensors = {id(tensor): tensor for tensor in (*tensors_of(modules), *stored)}
    generators = [
        value
        for module in modules
        for value in module.__dict__.values()
        if isinstance(value, torch.Generator)
    ]
    try:
        with rollback(tensors.values(), generators=generators, seed=seed):
            yield
    finally:
        attributes.restore()


@final
class Attributes:
    """A snapshot of modules' attributes, of containers among them, and of Pyro's store.

    Args:
        modules: the modules.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        store = pyro.get_param_store()
        # Owner, name, the container itself, and a copy of its content.
        self._held: list[tuple[str, str, Any, Any]] = [
            ("Pyro's store", "", entries, dict(entries))
            for entries in (store._params, store._constraints, store._param_to_name)
        ]
        for module in modules:
            owner, attributes = type(module).__name__, module.__dict__
            self._held.append((owner, "", attributes, dict(attributes)))
            for name, value in attributes.items():
                if type(value) in _CONTAINERS and not name.startswith(_PASSING):
                    self._held.append((owner, name, value, type(value)(value)))

    def changed(self) -> str | None:
        """Describe what has changed since the snapshot; None if nothing has."""
        for owner, name, container, content in self._held:
            if _same(container, content):
                continue
            if name:
                return f"{name!r} of {owner}"
            if owner == "Pyro's store":
                return owner
            names = sorted(container.keys() | content.keys())
            for one in names:
                kept = container.get(one, self) is content.get(one, self)
                if not kept and not one.startswith(_PASSING):
                    return f"{one!r} of {owner}"
        return None

    def restore(self) -> None:
        """Restore the snapshot."""
        for _, _, container, content in self._held:
            if not _same(container, content):
                container.clear()
                put = container.update if isinstance(container, dict | set) else container.extend
                put(content)


def _same(container: Any, content: Any) -> bool:
    if len(container) != len(content):
        return False
    if isinstance(container, dict):
        return all(key in container and container[key] is value for key, value in content.items())
    if isinstance(container, set):
        return bool(container == content)
    return all(one is other for one, other in zip(container, content, strict=True))


def agree(
    found: Sequence[Tensor], expected: Sequence[Tensor], *, tolerances: Sequence[float]
) -> list[bool]:
    """Return, for each pair of tensors, whether they differ by at most a fraction of their norm.

    Differences below a millionth of the largest norm count as rounding errors. Tensors with
    different shapes or strides do not agree.

    Args:
        found: tensors.
        expected: as many tensors.
        tolerances: for each pair, a fraction of the norm of the expected tensor.
    """
    norms = [_norm(tensor) for tensor in expected]
    negligible = 1e-6 * max(norms, default=0.0)
    return [
        one.shape == other.shape
        and _strides(one) == _strides(other)
        and torch.equal(one.isfinite(), other.isfinite())
        and _norm(one.double() - other.double()) <= tolerance * norm + negligible
        for one, other, norm, tolerance in zip(found, expected, norms, tolerances, strict=True)
    ]


def _norm(tensor: Tensor) -> float:
    return float(tensor.double().nan_to_num(0.0, 0.0, 0.0).norm())


def _strides(tensor: Tensor) -> list[int]:
    """Return the strides of dimensions with more than one element."""
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return [stride for size, stride in pairs if size > 1]
