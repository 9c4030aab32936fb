"""Guards of a recording: modules, their modes, parameters and numbers."""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from operator import is_
from types import NoneType
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

__all__ = ["Guards", "State", "differences", "surroundings"]

State = tuple[tuple[str, Any], ...]
"""For each module its class and the values that are compared."""

_PLAIN = frozenset({bool, int, float, complex, str, bytes, NoneType})


@final
class Guards:
    """The modules that programs run, and the state that a recording depends on.

    The state consists of the modules, their ``training`` flags, the identities of their
    parameters, whether these require gradients, and attributes that are plain numbers, strings or
    None. The modules are programs that are modules or methods of modules, and those called while
    :meth:`watching`.

    Args:
        programs: models, guides and parts of objectives.

    Example:
        >>> linear = nn.Linear(2, 2)
        >>> guards = Guards(linear)
        >>> before = guards.state()
        >>> _ = linear.eval()
        >>> differences(before, guards.state())
        "'training' of Linear"
    """

    def __init__(self, *programs: Any) -> None:
        owners = [getattr(program, "__self__", program) for program in programs]
        self._roots = {id(owner): owner for owner in owners if isinstance(owner, nn.Module)}
        self._seen: _Seen | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Add every module that is called inside the context."""

        def add(module: nn.Module, _inputs: Any) -> None:
            self._roots.setdefault(id(module), module)
            self._seen = None

        handle = register_module_forward_pre_hook(add)
        try:
            yield
        finally:
            handle.remove()

    def modules(self) -> list[nn.Module]:
        """Return all modules and submodules once, in the same order in each process."""
        inner = chain.from_iterable(root.modules() for root in self._roots.values())
        return list({id(module): module for module in inner}.values())

    def state(self, **others: Mapping[str, Any]) -> State:
        """Return the state for comparison.

        Args:
            others: attributes of objects that are not modules, by a name for the object.
        """
        if self._seen is None or not self._seen.is_unchanged():
            self._seen = _Seen(self.modules())
        about = [(name, tuple(_plain(attributes))) for name, attributes in others.items()]
        return (*self._seen.state, *about)


@final
class _Seen:
    """The state of modules, and the very objects that it was read from."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        modules = list(modules)
        self._dicts = [
            entries
            for module in modules
            for entries in (module.__dict__, module._parameters, module._modules)
        ]
        self._values = list(chain.from_iterable(map(dict.values, self._dicts)))
        self._parameters: list[Tensor] = []
        entries: list[tuple[str, Any]] = []
        for module in modules:
            own = [p for p in module._parameters.values() if p is not None]
            parameters = [(id(p), p.requires_grad) for p in own]
            entries.append(
                (type(module).__name__, (id(module), *parameters, *_plain(module.__dict__)))
            )
            self._parameters += own
        self._grads = [parameter.requires_grad for parameter in self._parameters]
        self.state: State = tuple(entries)

    def is_unchanged(self) -> bool:
        """Whether modules still hold the same objects, which is found fast."""
        return (
            sum(map(len, self._dicts)) == len(self._values)
            and all(map(is_, chain.from_iterable(map(dict.values, self._dicts)), self._values))
            and [parameter.requires_grad for parameter in self._parameters] == self._grads
        )


def _plain(attributes: Mapping[str, Any]) -> list[tuple[str, type, Any]]:
    # With types, since 1, 1.0 and True are equal.
    return [
        (name, type(value), value) for name, value in attributes.items() if type(value) in _PLAIN
    ]


def differences(before: State, after: State) -> str:
    """Describe how two states differ; an empty string if they are equal."""
    if len(before) != len(after):
        return "which modules the programs call"
    names: list[str] = []
    for (owner, old), (_, new) in zip(before, after, strict=True):
        if old != new:
            entries = [entry for entry in set(new) ^ set(old) if isinstance(entry, tuple)]
            changed = [entry[0] for entry in entries if isinstance(entry[0], str)]
            what = sorted(map(repr, set(changed))) or ["parameters"]
            names += [f"{name} of {owner}" for name in what]
    return ", ".join(names[:3])


def surroundings() -> Hashable:
    """Return the global settings that a recording depends on: autocast and default dtype."""
    kinds = ("cpu", "cuda")
    casts = [torch.get_autocast_dtype(k) if torch.is_autocast_enabled(k) else None for k in kinds]
    return (*casts, torch.get_default_dtype())


def tensors_of(modules: Iterable[nn.Module]) -> list[Tensor]:
    """Return the parameters, buffers and tensor attributes of modules."""
    found: dict[int, Tensor] = {}
    for module in modules:
        for held in (module._parameters, module._buffers, module.__dict__):
            for value in held.values():
                if isinstance(value, Tensor):
                    found.setdefault(id(value), value)
    return list(found.values())
