"""Evaluations that leave no trace: what they change is put back, and results are compared."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

import pyro
import torch
from torch import Tensor, nn

from pyro_dpvae.recording.guards import tensors_of

__all__ = ["Attributes", "agree", "rollback", "rollback_modules"]

_CONTAINERS = (list, dict, set, deque)

# Transforms cache under such names, Pyro's modules keep the state of a run there, and its guides
# make their plates anew for each.
_PASSING = ("_cached", "_pyro", "plates")


@contextmanager
def rollback(
    tensors: Iterable[Tensor],
    *,
    generators: Iterable[torch.Generator] = (),
    seed: int | None = None,
) -> Iterator[None]:
    """Put back, at the end, the values and gradients of tensors and the states of random draws.

    Gradients are empty meanwhile.

    Args:
        tensors: what an evaluation may change in place.
        generators: random generators beside PyTorch's own.
        seed: of PyTorch's generators meanwhile; None goes on as it was.
    """
    values = [(tensor, tensor.detach().clone()) for tensor in tensors]
    gradients = [(tensor, tensor.grad) for tensor, _ in values if tensor.is_leaf]
    states = [(generator, generator.get_state()) for generator in generators]
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            if seed is not None:
                torch.manual_seed(seed)
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
    """Put back what programs of some modules may change, Pyro's store and attributes included.

    Args:
        modules: those that the programs run.
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
    """The attributes of modules, the content of containers among them, and Pyro's store.

    Args:
        modules: whose attributes they are.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        store = pyro.get_param_store()
        # Whose it is, under which name there, the container itself, and what it holds now.
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
        """Return what has changed since, in words, or None."""
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
        """Put everything back."""
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
    """Return, tensor by tensor, whether they differ by at most a part of their norm.

    What is below a millionth of the largest norm of all is a rounding error. Tensors of other
    shapes or strides do not agree.

    Args:
        found: tensors.
        expected: as many.
        tolerances: of each, a part of the norm of what is expected.
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
    """Return the strides of the dimensions that have more than one element."""
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return [stride for size, stride in pairs if size > 1]
