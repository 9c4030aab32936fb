"""The command line: parse, build, call."""

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from pyro_dpvae.cli import compare, demo, evaluate, plot, sample, train

__all__ = ["main"]

_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "compare": compare.main,
    "demo": demo.main,
    "evaluate": evaluate.main,
    "plot": plot.main,
    "sample": sample.main,
    "train": train.main,
}

_HELP = """\
usage: dpvae COMMAND [OPTIONS]

Variational autoencoders in Pyro that represent and generate.

  dpvae demo       train a beta-VAE and a beta-dpVAE on two moons and draw both
  dpvae train      train a system on a data set by name, file or folder; writes a run folder
  dpvae sample     draw samples from a trained run
  dpvae evaluate   measure a trained run: likelihood, pockets, leaks, features, representation
  dpvae compare    set evaluated runs side by side, with paired differences
  dpvae plot       draw a trained run: samples, latent space, traversals, leakage

'dpvae COMMAND --help' lists the options of a command, 'dpvae --version' prints the version.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status (0 done, 2 refused, 130 interrupted)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in ("-h", "--help"):
        print(_HELP, end="")
        return 0
    if command == "--version":
        print(version("pyro-dpvae"))
        return 0
    if command not in _COMMANDS:
        print(
            f"dpvae: error: the command must be one of {', '.join(_COMMANDS)}; got {command!r}",
            file=sys.stderr,
        )
        return 2

    def show(message: Warning | str, *_where: Any, **_more: Any) -> None:
        print(f"dpvae {command}: warning: {message}", file=sys.stderr)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            return _COMMANDS[command](rest)
    except (ValueError, TypeError, OSError) as error:
        print(f"dpvae {command}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"dpvae {command}: interrupted", file=sys.stderr)
        return 130
