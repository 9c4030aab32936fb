"""What a recording depends on besides tensors' values: modules, their modes and settings."""

from collections.abc import Hashable, Iterable, Iterator
from functools import partial
from types import FunctionType, MethodType, NoneType
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Fingerprint", "differences", "fingerprint", "modules_of", "surroundings"]

Fingerprint = tuple[tuple[str, str, Any], ...]
"""Entries of an owner's class, a name, and what it refers to."""

_PLAIN = {bool, int, float, str, NoneType}


def modules_of(*programs: Any) -> list[nn.Module]:
    """Return the modules that programs consist of, with the modules in them.

    A program is a module, a method of one, a function that refers to modules by its closure or by
    global names, or one of these in ``functools.partial`` or a Pyro handler.
    """
    found: dict[int, nn.Module] = {}
    seen: set[int] = set()
    for program in programs:
        for root in _roots(program, seen):
            _descend(root, found)
    return list(found.values())


def fingerprint(modules: Iterable[nn.Module], others: Iterable[Any] = ()) -> Fingerprint:
    """Return what may not change between a recording and its replay.

    These are, of modules and other objects, the attributes that are numbers, strings or None (the
    mode of training is one), and which tensors are parameters, buffers and attributes.
    """
    entries: list[tuple[str, str, Any]] = []
    for module in modules:
        owner = type(module).__name__
        entries.append((owner, "itself", id(module)))
        for name, parameter in module._parameters.items():
            if parameter is not None:
                entries.append((owner, name, (id(parameter), parameter.requires_grad)))
        for name, buffer in module._buffers.items():
            entries.append((owner, name, id(buffer)))
        _add_attributes(entries, owner, module)
    for other in others:
        _add_attributes(entries, type(other).__name__, other)
    return tuple(entries)


def differences(before: Fingerprint, after: Fingerprint) -> str:
    """Return what differs between two fingerprints, in words."""
    if len(before) != len(after):
        return "the modules"
    names = [
        f"{name!r} of {owner}"
        for (owner, name, old), (_, _, new) in zip(before, after, strict=True)
        if old != new
    ]
    return ", ".join(names[:3])


def surroundings() -> Hashable:
    """Return the global settings that a recording depends on: casts, and the default dtype."""
    kinds = ("cpu", "cuda")
    casts = [torch.get_autocast_dtype(k) if torch.is_autocast_enabled(k) else None for k in kinds]
    return (*casts, torch.get_default_dtype())


def _add_attributes(entries: list[tuple[str, str, Any]], owner: str, of: Any) -> None:
    for name, value in vars(of).items():
        if type(value) in _PLAIN:
            entries.append((owner, name, value))
        elif isinstance(value, Tensor) and value.is_leaf:  # others are results, as caches hold
            entries.append((owner, name, id(value)))


def _descend(module: nn.Module, found: dict[int, nn.Module]) -> None:
    # nn.Module.modules() does the same in twice the time, and this runs in every step.
    if id(module) not in found:
        found[id(module)] = module
        for child in module._modules.values():
            if child is not None:
                _descend(child, found)


def _roots(program: Any, seen: set[int]) -> Iterator[nn.Module]:
    if id(program) in seen:
        return
    seen.add(id(program))
    if isinstance(program, nn.Module):
        yield program
    elif isinstance(program, partial):
        for part in (program.func, *program.args, *program.keywords.values()):
            yield from _roots(part, seen)
    elif isinstance(program, MethodType):
        yield from _roots(program.__self__, seen)
        yield from _roots(program.__func__, seen)
    elif isinstance(program, FunctionType):
        for value in _references(program):
            yield from _roots(value, seen)


def _references(function: FunctionType) -> Iterator[Any]:
    """Yield what a function's closure and the global names in its code refer to."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a name that has no value yet
            continue
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield function.__globals__[name]
