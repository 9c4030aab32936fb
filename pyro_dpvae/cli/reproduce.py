"""``dpvae reproduce``: what a paper shows, from runs of its recipes."""

from collections.abc import Callable, Sequence

from pyro_dpvae.cli import figures, table1
from pyro_dpvae.cli.parser import UsageError

__all__ = ["main"]

_TARGETS: dict[str, Callable[[Sequence[str]], int]] = {
    "table1": table1.main,
    "figures": figures.main,
}

_HELP = """\
usage: dpvae reproduce TARGET [OPTIONS]

Train and measure what the paper of the decoupled prior shows. Interrupted, the same command
goes on.

  dpvae reproduce table1   the twelve models, measured, and what becomes of the paper's claims
  dpvae reproduce figures  figures 1, 3, 4, 5, 6 and 8

'dpvae reproduce TARGET --help' lists the options of a target.
"""


def main(arguments: Sequence[str]) -> int:
    """Reproduce a target; returns the exit status."""
    target, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if target in ("-h", "--help"):
        print(_HELP, end="")
        return 0
    if target not in _TARGETS:
        raise UsageError(
            f"what is reproduced must be one of {', '.join(_TARGETS)}; got {target!r}"
        )
    return _TARGETS[target](rest)
