"""The command ``python -m papers.dpvae``: which target to reproduce, with which options."""

import sys
from collections.abc import Sequence
from importlib import import_module

from papers.dpvae.options import PROGRAM, TARGETS
from pyro_dpvae._parser import UsageError
from pyro_dpvae.cli import exit_status

__all__ = ["main"]

_HELP = f"""\
usage: {PROGRAM} TARGET [OPTIONS]

Train and measure the models of the dpVAE paper. An interrupted command continues when it is
given again.

  {PROGRAM} table1   train and measure the twelve models; test the paper's claims
  {PROGRAM} figures  draw figures 1, 3, 4, 5, 6 and 8

'{PROGRAM} TARGET --help' lists the options of a target.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Reproduce one target; returns the exit status, the same as that of ``dpvae``."""
    arguments = sys.argv[1:] if arguments is None else arguments
    target, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if target in ("-h", "--help"):
        print(_HELP, end="")
        return 0

    def work() -> int:
        if target not in TARGETS:
            raise UsageError(
                f"the target must be one of {', '.join(TARGETS)}; got {target!r}", PROGRAM
            )
        options = TARGETS[target]().parse_args(list(rest))
        status: int = import_module(f"papers.dpvae.command_{target}").main(options)
        return status

    return exit_status(f"{PROGRAM} {target}" if target in TARGETS else PROGRAM, work, rest)


if __name__ == "__main__":
    sys.exit(main())
