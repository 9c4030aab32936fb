"""The command line: parse, build, call."""

import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import torch
from tqdm import tqdm

from pyro_dpvae.cli import (
    compare,
    demo,
    evaluate,
    explore,
    plot,
    recipes,
    report,
    reproduce,
    sample,
    train,
)
from pyro_dpvae.cli.parser import UsageError
from pyro_dpvae.cli.processes import ended_elsewhere, first_to_fail, joined
from pyro_dpvae.training import NonFiniteError

__all__ = ["main"]

_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "compare": compare.main,
    "demo": demo.main,
    "evaluate": evaluate.main,
    "explore": explore.main,
    "plot": plot.main,
    "recipes": recipes.main,
    "report": report.main,
    "reproduce": reproduce.main,
    "sample": sample.main,
    "train": train.main,
}

_HELP = """\
usage: dpvae COMMAND [OPTIONS]

Variational autoencoders in Pyro that represent and generate.

  dpvae demo       train a beta-VAE and a beta-dpVAE on two moons and draw both
  dpvae recipes    list the systems of the papers, with the source of each number
  dpvae train      train a system on a data set by name, file or folder; writes a run folder
  dpvae sample     draw samples from a trained run
  dpvae evaluate   measure a trained run: likelihood, pockets, leaks, features, representation
  dpvae compare    set runs side by side, with paired differences; --evaluate measures them first
  dpvae plot       draw a trained run: samples, latent space, traversals, leakage
  dpvae reproduce  train, measure and draw what the dpVAE paper shows: table1, figures
  dpvae report     write runs as one page of HTML: curves, metrics, differences, figures
  dpvae explore    walk through a trained run's latent spaces, on a page in the browser

'dpvae COMMAND --help' lists the options of a command, 'dpvae --version' prints the version.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    It is 0 if all is done, 2 if something is refused, 3 if training is not finite, and 128 with
    the number of the signal if one has interrupted: 130 by Ctrl-C, 143 by SIGTERM.
    """
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
        # Above a bar, if there is one.
        tqdm.write(f"dpvae {command}: warning: {message}", file=sys.stderr)

    def end(status: int, how: str) -> int:
        if first_to_fail():
            print(f"dpvae {command}: {how}", file=sys.stderr)
        return status

    try:
        with joined(), warnings.catch_warnings():
            warnings.showwarning = show
            return _COMMANDS[command](rest)
    except NonFiniteError as error:
        return end(3, f"error: {error}")
    except (ValueError, TypeError, OSError, ImportError, UsageError) as error:
        return end(2, f"error: {error}")
    except KeyboardInterrupt as error:
        number = error.args[0] if error.args else signal.SIGINT
        return end(128 + number, "; ".join(["interrupted", *getattr(error, "__notes__", ())]))
    except (MemoryError, RuntimeError) as error:
        if ended_elsewhere(error):
            return end(1, f"error: another process of the command has ended ({error})")
        if not _out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "no more is left"
        return end(
            2,
            f"error: all must fit into memory, and it does not: {reason}; choose smaller sizes of "
            "parts or batches",
        )


def _out_of_memory(error: Exception) -> bool:
    # The CPU's allocator has no class of errors of its own.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(
        error
    )
