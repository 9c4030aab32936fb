"""Pyro modules that own their parameters, so that several can train in one process."""

import copy
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pyro
from pyro.nn import PyroModule
from pyro.params.param_store import param_with_module_name

__all__ = ["OwnedModule", "is_plain", "plain"]

Forward = TypeVar("Forward", bound=Callable[..., Any])

_COUNTERS: "defaultdict[str, itertools.count[int]]" = defaultdict(lambda: itertools.count(1))


class OwnedModule(PyroModule):
    """A root PyroModule with its own name in Pyro's parameter store.

    Pyro keeps parameters in one store per process, by name. Two modules with the same name would
    share an entry: an optimizer would update only the first one's tensor, without any warning. So
    each module gets the name of its class with a running number, and a copy gets a new one. A call
    checks that the entries in the store are this module's own tensors.

    Raises:
        RuntimeError: on a call, if an entry of the store under this module's name is another
            tensor, or a part is a PyroModule that belongs to another root.
    """

    def __init__(self) -> None:
        super().__init__(_new_name(type(self).__name__))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Check the entries in the store, then run the module."""
        self._check_ownership()
        return super().__call__(*args, **kwargs)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Let parts register their parameters in Pyro's store inside the context, as in a call."""
        self._check_ownership()
        with self._pyro_context:
            yield

    def __deepcopy__(self, memo: dict[int, Any]) -> "OwnedModule":
        duplicate = type(self).__new__(type(self))
        memo[id(self)] = duplicate
        duplicate.__dict__.update(copy.deepcopy(self.__dict__, memo))
        context = duplicate._pyro_context
        context.used = False  # the copy has registered nothing yet, so it may be renamed
        duplicate._pyro_set_supermodule(_new_name(type(self).__name__), context)
        return duplicate

    def _check_ownership(self) -> None:
        if pyro.settings.get("module_local_params"):
            return
        stored = pyro.get_param_store()._params
        for part, module in self.named_children():
            if isinstance(module, PyroModule):
                if module._pyro_context is not self._pyro_context:
                    raise RuntimeError(
                        f"part {part!r} of {self._pyro_name!r} is a PyroModule of another root, "
                        f"{module._pyro_name!r}: its parameters would not train here; make the "
                        "shared part a plain torch.nn.Module"
                    )
                continue
            for name, parameter in module.named_parameters():
                entry = param_with_module_name(f"{self._pyro_name}.{part}", name)
                if stored.get(entry, parameter) is not parameter:
                    raise RuntimeError(
                        f"parameter {name!r} of {self._pyro_name}.{part} differs from the entry "
                        f"{entry!r} of Pyro's parameter store: only the store's would train; "
                        "load weights with load_state_dict, or call pyro.clear_param_store() "
                        "first"
                    )


def plain(forward: Forward) -> Forward:
    """Mark a ``forward`` that only samples z ~ posterior(x), or z ~ prior(); x ~ decoder(z).

    Code that needs only the distributions may take them from the parts without running it.
    """
    forward._is_plain = True  # type: ignore[attr-defined]
    return forward


def is_plain(program: Any) -> bool:
    """Return True for a module whose call is only a :func:`plain` forward."""
    kind = type(program)
    return (
        isinstance(program, OwnedModule)
        and kind.__call__ is OwnedModule.__call__
        and getattr(kind.forward, "_is_plain", False)
        and "forward" not in vars(program)
        and program._compiled_call_impl is None
        and not (program._forward_hooks or program._forward_pre_hooks)
        and not (program._backward_hooks or program._backward_pre_hooks)
    )


def _new_name(stem: str) -> str:
    number = next(_COUNTERS[stem])
    return stem if number == 1 else f"{stem}_{number}"
