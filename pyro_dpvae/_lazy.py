"""Packages whose names are imported when they are first asked for."""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

__all__ = ["lazily"]


def lazily(
    package: str, names: Sequence[str], *, modules: Sequence[str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package that imports nothing by itself.

    A name is looked up in one module after the other, until one has it, and is the package's from
    then on. So a name costs what is imported up to its module.

    Args:
        package: the name of the package.
        names: what it exports.
        modules: those of the package that have them, cheap ones first. They are attributes of the
            package too.

    Example:
        >>> find, _ = lazily("json", ["JSONDecoder"], modules=["scanner", "decoder"])
        >>> find("JSONDecoder").__module__
        'json.decoder'
    """

    def find(name: str) -> Any:
        if name in modules:
            return import_module(f"{package}.{name}")
        if name in names:
            for module in modules:
                found = import_module(f"{package}.{module}")
                if hasattr(found, name):
                    setattr(sys.modules[package], name, getattr(found, name))
                    return getattr(found, name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names_there() -> list[str]:
        public = {one for one in modules if not one.startswith("_")}
        return sorted({*vars(sys.modules[package]), *names, *public})

    return find, names_there
