"""What a program holds besides the values of tensors: what a recording of it depends on."""

import dis
import sys
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from numbers import Number
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType, NoneType
from typing import Any

import numpy as np
import torch
from pyro.infer import ELBO
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.parameter import is_lazy

__all__ = ["Fingerprint", "Reach", "Survey", "differences", "surroundings", "survey"]

Fingerprint = tuple[tuple[str, str, Any], ...]
"""Entries of an owner, a name, and what it refers to."""

_PLAIN = frozenset({bool, int, float, complex, str, bytes, NoneType})
_STANDARD = frozenset(vars(nn.Module())) - {"training"}  # of every module, and seen by themselves
_LIBRARIES = frozenset({"torch", "pyro", "numpy", "pyro_dpvae", "builtins", "functools"})
_HOLDERS = frozenset({"types", "argparse", "collections"})
_DEEPEST, _LONGEST = 32, 1000


@dataclass(frozen=True)
class Survey:
    """What a walk through programs has found.

    Attributes:
        modules: the modules, with the modules in them.
        tensors: parameters, buffers, and tensors in attributes, closures and containers.
        containers: lists and dictionaries.
        owners: the ``__dict__`` of modules and other objects.
        generators: of random numbers.
        iterators: what gives another value each time, by owner and name.
        objects: others that entries name, held so that nothing else takes their identity.
        entries: what may not change between a recording and its replay: numbers, strings, which
            modules, tensors and objects of libraries are where, and of tensors what is no value.
        roots: the programs themselves.
    """

    modules: list[nn.Module] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    containers: list[list[Any] | dict[Any, Any]] = field(default_factory=list)
    owners: list[dict[str, Any]] = field(default_factory=list)
    generators: list[torch.Generator] = field(default_factory=list)
    iterators: list[str] = field(default_factory=list)
    objects: list[Any] = field(default_factory=list)
    entries: list[tuple[str, str, Any]] = field(default_factory=list)
    roots: tuple[Any, ...] = ()

    @property
    def fingerprint(self) -> Fingerprint:
        """The entries."""
        return tuple(self.entries)


class Reach:
    """The names in the code that programs may run, which grow as more of it is found.

    Of an object only the attributes of such names matter: a trainer whose methods are the model
    and the guide counts its steps beside them.
    """

    def __init__(self) -> None:
        self.names: set[str] = {"training", "forward", "__call__"}
        self.functions: dict[CodeType, FunctionType] = {}
        self._classes: dict[type, int] = {}

    def add(self, function: FunctionType) -> None:
        """Add the names in a function's code, and in that of functions within it."""
        code = function.__code__
        if code not in self.functions:
            self.functions[code] = function
            self.names.update(_names(code))
            self.names.update(c for c in code.co_consts if isinstance(c, str))  # for getattr

    def add_methods(self, of: type) -> None:
        """Add the names in those methods of a class that the names so far may call."""
        if self._classes.get(of) == len(self.names):
            return
        self._classes[of] = len(self.names)
        for kind in of.__mro__:
            for name, value in vars(kind).items() if kind not in (object, nn.Module) else ():
                value = getattr(value, "fget", None) or getattr(value, "__func__", value)
                if name in self.names and isinstance(value, FunctionType):
                    self.add(value)


def survey(*programs: Any, reach: Reach, **others: Mapping[str, Any]) -> Survey:
    """Walk through what programs refer to.

    A program is a module, a function, a method, an object, or one of these in
    ``functools.partial`` or a Pyro handler. Of functions, defaults, closures, and numbers,
    modules and functions under the global names in their code are looked at; of other objects,
    the attributes that the code may ask for. The insides of libraries and of containers of more
    than a thousand items are left out.

    Args:
        programs: the programs.
        reach: of the programs; kept from walk to walk, it saves their code from being read anew.
        others: attributes of what is no program itself, by a name for it.
    """
    while True:
        size = len(reach.names)
        found = Survey(roots=programs)
        walk = _Walk(found, reach)
        for program in programs:
            walk.visit("the programs", type(program).__name__, program, 0)
        for owner, attributes in others.items():
            for name, value in attributes.items():
                walk.visit(owner, name, value, 1)
        for function in list(reach.functions.values()):
            walk.visit_globals(function)
        if len(reach.names) == size:  # nothing that this walk has left out is asked for
            return found


def differences(before: Fingerprint, after: Fingerprint) -> str:
    """Return what differs between two fingerprints, in words."""
    names = [
        f"{name!r} of {owner}"
        for (owner, name, old), (other, also, new) in zip(before, after, strict=False)
        if (owner, name, old) != (other, also, new)
    ]
    if len(before) != len(after):
        names.append("what the programs hold")
    return ", ".join(names[:3])


def surroundings() -> Hashable:
    """Return the global settings that a recording depends on: casts, and the default dtype."""
    kinds = ("cpu", "cuda")
    casts = [torch.get_autocast_dtype(k) if torch.is_autocast_enabled(k) else None for k in kinds]
    return (*casts, torch.get_default_dtype())


class _Walk:
    """One walk; what it has seen is not visited again."""

    def __init__(self, found: Survey, reach: Reach) -> None:
        self.found, self.reach = found, reach
        self.seen: set[int] = set()

    def visit(self, owner: str, name: str, value: Any, depth: int) -> None:
        """Take down a value, and go on to what it refers to."""
        kind = _kind(type(value))
        if kind is None:
            self.found.entries.append((owner, name, _told_apart(value)))
        elif kind is _Walk._tensor:
            self._tensor(owner, name, value, depth)
        elif id(value) not in self.seen and depth <= _DEEPEST:
            self.seen.add(id(value))
            kind(self, owner, name, value, depth)

    def _tensor(self, owner: str, name: str, tensor: Tensor, _depth: int) -> None:
        if not tensor.is_leaf:  # a result, as caches hold, and no part of the program
            return
        kind: Any = (id(tensor), tensor.requires_grad, tensor.dtype, tensor.device)
        if not is_lazy(tensor):
            kind = (*kind, tensor.shape, tensor.stride())
        self.found.entries.append((owner, name, kind))
        if id(tensor) not in self.seen:
            self.seen.add(id(tensor))
            self.found.tensors.append(tensor)

    def _identity(self, owner: str, name: str, value: Any, _depth: int) -> None:
        self.found.objects.append(value)
        self.found.entries.append((owner, name, id(value)))

    def _nothing(self, _owner: str, _name: str, _value: Any, _depth: int) -> None:
        """Leave it out."""

    def _items(self, owner: str, name: str, items: Any, depth: int) -> None:
        if isinstance(items, list):
            self.found.containers.append(items)
        if len(items) > _LONGEST:
            self.found.entries.append((owner, name, (id(items), len(items))))
            return
        for item in items:
            self.visit(owner, name, item, depth + 1)

    def _mapping(self, owner: str, name: str, mapping: dict[Any, Any], depth: int) -> None:
        self.found.containers.append(mapping)
        if len(mapping) > _LONGEST:
            self.found.entries.append((owner, name, (id(mapping), len(mapping))))
            return
        for key, item in mapping.items():
            label = repr(key) if type(key) in _PLAIN else str(id(key))
            self.visit(owner, f"{name}[{label}]", item, depth + 1)

    def _array(self, owner: str, name: str, array: Any, _depth: int) -> None:
        content = array.tobytes() if array.size <= _LONGEST and not array.dtype.hasobject else None
        self.found.objects.append(array)
        self.found.entries.append((owner, name, (id(array), content)))

    def _class(self, _owner: str, _name: str, kind: type, depth: int) -> None:
        for one in _own_classes(kind):
            self._attributes(kind.__name__, vars(one), depth=depth + 1)

    def _iterator(self, owner: str, name: str, _value: Any, _depth: int) -> None:
        self.found.iterators.append(f"{name!r} of {owner}")

    def _generator(self, _owner: str, _name: str, generator: torch.Generator, _depth: int) -> None:
        self.found.generators.append(generator)

    def _partial(self, owner: str, name: str, value: Any, depth: int) -> None:
        for part in (value.func, value.args, value.keywords):
            self.visit(owner, name, part, depth + 1)

    def _method(self, owner: str, name: str, value: MethodType, depth: int) -> None:
        self.visit(owner, name, value.__self__, depth + 1)
        self.visit(owner, name, value.__func__, depth + 1)

    def _module(self, _owner: str, _name: str, module: nn.Module, depth: int) -> None:
        owner = type(module).__name__
        self.found.modules.append(module)
        self.found.entries.append((owner, "itself", id(module)))
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    self._tensor(owner, name, tensor, depth)
        self._object(owner, "", module, depth)
        for name, child in module._modules.items():
            if child is not None:
                self.visit(owner, name, child, 1)

    def _object(self, _owner: str, _name: str, value: Any, depth: int) -> None:
        attributes = _attributes_of(value)
        owner, entries = type(value).__name__, self.found.entries
        own, names = _own_classes(type(value)), self.reach.names
        entries.append((owner, "its class", id(type(value))))
        if own:
            self.reach.add_methods(type(value))
            for kind in own:
                self._attributes(owner, vars(kind), depth=depth + 1)
        self.found.owners.append(attributes)
        for name, attribute in list(attributes.items()):
            if name in _STANDARD or (own and name not in names):
                continue
            if type(attribute) in _PLAIN:  # the most common, taken down without a call
                entries.append((owner, name, _told_apart(attribute)))
            # Transforms cache under such names, and Pyro's modules keep the state of a run; its
            # guides make their plates anew for each.
            elif name != "plates" and not name.startswith(("_cached", "_pyro")):
                self.visit(owner, name, attribute, depth + 1)

    def _function(self, _owner: str, _name: str, function: FunctionType, depth: int) -> None:
        if (function.__module__ or "").split(".")[0] in _LIBRARIES:
            return
        owner, code = function.__name__, function.__code__
        self.reach.add(function)
        self.found.entries.append((owner, "itself", id(code)))
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # a name that has no value yet
                continue
            self._visit_name(owner, name, value, depth + 1)
        defaults = (function.__defaults__ or (), function.__kwdefaults__ or {})
        for number, default in enumerate((*defaults[0], *defaults[1].values())):
            self.visit(owner, f"default {number}", default, depth + 1)

    def visit_globals(self, function: FunctionType) -> None:
        """Visit what the global names in a function's code refer to."""
        for name in _globals_of(function.__code__):
            value = function.__globals__.get(name)
            if isinstance(value, ModuleType):
                if value.__name__.split(".")[0] not in _LIBRARIES:
                    self._attributes(value.__name__, vars(value), depth=_DEEPEST)
            elif name in function.__globals__:
                self._visit_name(function.__name__, name, value, 1)

    def _visit_name(self, owner: str, name: str, value: Any, depth: int) -> None:
        """Visit what a name stands for, which may be a result of operations outside."""
        if isinstance(value, Tensor) and not value.is_leaf:
            self._identity(owner, name, value, depth)
        else:
            self.visit(owner, name, value, depth)

    def _attributes(self, owner: str, attributes: Mapping[str, Any], *, depth: int) -> None:
        """Visit the attributes that the code may ask for, functions and descriptors aside."""
        for name in sorted(self.reach.names & attributes.keys()):  # in one order in each walk
            if not hasattr(type(attributes[name]), "__get__"):
                self.visit(owner, name, attributes[name], depth)


def _told_apart(value: Any) -> tuple[type, Any]:
    """Return a value as a key: 1, 1.0 and True are equal, and so are 0.0 and -0.0."""
    zero = type(value) is float and value == 0
    return type(value), repr(value) if zero else value


def _attributes_of(value: Any) -> dict[str, Any]:
    """Return the attributes of an object, those in slots included."""
    try:
        attributes = value.__dict__
    except Exception:  # an object may refuse, as proxies do
        attributes = {}
    kind = type(value)
    if kind not in _SLOTS:
        own = [name for one in _own_classes(kind) for name in vars(one).get("__slots__", ())]
        _SLOTS[kind] = [name for name in own if name not in ("__dict__", "__weakref__")]
    if _SLOTS[kind] or not isinstance(attributes, dict):
        return {name: getattr(value, name) for name in _SLOTS[kind] if hasattr(value, name)}
    return attributes


_SLOTS: dict[type, list[str]] = {}
_CLASSES: dict[type, tuple[type, ...]] = {}


def _own_classes(of: type) -> tuple[type, ...]:
    """Return the classes of a type that are no library's: their attributes may be numbers."""
    if of not in _CLASSES:
        _CLASSES[of] = tuple(kind for kind in of.__mro__ if not _is_of_library(kind))
    return _CLASSES[of]


_Kind = Callable[..., None] | None
"""How a walk goes on from a value; None for what is compared as it is."""

_KINDS: dict[type, _Kind] = {}


def _kind(of: type) -> _Kind:
    if of not in _KINDS:
        _KINDS[of] = _kind_of(of)
    return _KINDS[of]


def _kind_of(of: type) -> _Kind:
    kinds: list[tuple[Any, _Kind]] = [
        ((*_PLAIN, Number, np.generic), None),
        (Tensor, _Walk._tensor),
        (nn.Module, _Walk._module),
        ((list, tuple, set, frozenset, deque), _Walk._items),
        (np.ndarray, _Walk._array),
        (dict, _Walk._mapping),
        (torch.Generator, _Walk._generator),
        (partial, _Walk._partial),
        (MethodType, _Walk._method),
        (FunctionType, _Walk._function),
        ((Distribution, ELBO, Messenger), _Walk._object),
        (ModuleType, _Walk._nothing),
        (type, _Walk._class),
        (BuiltinFunctionType, _Walk._nothing),
        (Iterator, _Walk._iterator),
    ]
    for types, kind in kinds:
        if issubclass(of, types):
            return kind
    return _Walk._identity if _is_of_library(of) else _Walk._object


def _is_of_library(kind: type) -> bool:
    # Of Python's own classes, those that hold what a user puts there are looked into.
    root = kind.__module__.split(".")[0]
    return root in _LIBRARIES or (root in sys.stdlib_module_names and root not in _HOLDERS)


_GLOBALS: dict[CodeType, list[str]] = {}


def _globals_of(code: CodeType) -> list[str]:
    """Return the names that a code, and that of functions within it, look up as globals."""
    if code not in _GLOBALS:
        own = [i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"]
        within = [c for c in code.co_consts if isinstance(c, CodeType)]
        _GLOBALS[code] = list(dict.fromkeys([*own, *(n for c in within for n in _globals_of(c))]))
    return _GLOBALS[code]


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names in a function's code and in that of functions within it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
