"""What ``dpvae reproduce`` is to reproduce, with the options of that."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from jsonargparse import Namespace

from pyro_dpvae.cli.options import figures, table1
from pyro_dpvae.cli.parser import UsageError

__all__ = ["Target", "parsed"]

_TARGETS: dict[str, Callable[[Sequence[str]], Namespace]] = {
    "table1": table1.parsed,
    "figures": figures.parsed,
}


class Target(NamedTuple):
    """What is to be reproduced.

    Attributes:
        name: of the target, which is that of its module in ``pyro_dpvae.cli``.
        options: of the target.
    """

    name: str
    options: Namespace


def parsed(arguments: Sequence[str]) -> Target | None:
    """Return the target that a command line names; None if it asks for help."""
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if name in ("-h", "--help"):
        return None
    if name not in _TARGETS:
        raise UsageError(f"what is reproduced must be one of {', '.join(_TARGETS)}; got {name!r}")
    return Target(name, _TARGETS[name](rest))
