"""The command line of the library, ``dpvae COMMAND``."""

import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib import import_module
from typing import Any

from pyro_dpvae._malloc import keep_freed_memory
from pyro_dpvae._parser import UsageError
from pyro_dpvae.cli.flags import in_flags
from pyro_dpvae.cli.options import COMMANDS, parsed
from pyro_dpvae.cli.pipes import patient_output

__all__ = ["exit_status", "main"]

_HELP = """\
usage: dpvae COMMAND [OPTIONS]

Variational autoencoders in Pyro that represent and generate.

  dpvae demo        train a beta-VAE and a beta-dpVAE on two moons and draw both
  dpvae recipes     list the systems of the papers, with the source of each number
  dpvae data        show how a data file is read, without training anything
  dpvae train       train a system on a data set by name, file or folder; writes a run folder
  dpvae sample      draw samples from a trained run
  dpvae encode      write the latents of all data of a run
  dpvae reconstruct draw held-out data beside their reconstructions
  dpvae interpolate decode the path between two held-out data
  dpvae evaluate    measure a trained run: likelihood, pockets, leaks, features, representation
  dpvae compare     compare runs with paired differences; --evaluate measures them first
  dpvae plot        draw a trained run: samples, latent space, traversals, leakage
  dpvae report      write runs as one page of HTML: curves, metrics, differences, figures
  dpvae explore     explore the latent spaces of a trained run on a page in the browser

'dpvae COMMAND --help' lists the options of a command, 'dpvae --version' prints the version.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status, as :func:`exit_status` does."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if sys.platform == "win32":
        print(
            "dpvae: error: the system must be Linux or macOS, got Windows; use the Windows "
            "Subsystem for Linux (WSL)",
            file=sys.stderr,
        )
        return 2
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in ("-h", "--help"):
        print(_HELP, end="")
        return 0
    if command == "--version":
        from pyro_dpvae._version import __version__

        print(__version__)
        return 0
    if command not in COMMANDS:
        print(
            f"dpvae: error: the command must be one of {', '.join(COMMANDS)}; got {command!r}",
            file=sys.stderr,
        )
        return 2

    def work() -> int:
        keep_freed_memory()
        if command == "train":  # whose parser needs PyTorch
            options = import_module("pyro_dpvae.cli.train_options").parsed(rest)
        else:
            options = parsed(command, rest)
        # A command's module is imported when it runs: imports of PyTorch take seconds.
        status: int = import_module(f"pyro_dpvae.cli.{command}").main(options)
        return status

    return exit_status(f"dpvae {command}", work, rest)


def exit_status(command: str, work: Callable[[], int], arguments: Sequence[str]) -> int:
    """Do the work of a command, and print its warnings and errors as one line each.

    Errors name the flags in ``arguments`` instead of the Python arguments that they stand for.

    Args:
        command: the name of the command, which begins each line.
        work: returns an exit status.
        arguments: the arguments of the command.

    Returns:
        The exit status of the work; 2 if it refuses its input, 3 if training is not finite, 1 if
        another process of the command has failed, and 128 plus the number of the signal if one
        interrupts it: 130 for Ctrl-C, 143 for SIGTERM.
    """

    def show(message: Warning | str, *_where: Any, **_more: Any) -> None:
        from pyro_dpvae._bars import write_above

        write_above(f"{command}: warning: {in_flags(str(message), arguments)}")

    def end(status: int, how: str) -> int:
        if _alone() or import_module("pyro_dpvae.cli.processes").first_to_fail():
            print(f"{command}: {how}", file=sys.stderr)
        return status

    try:
        joined = nullcontext() if _alone() else import_module("pyro_dpvae.cli.processes").joined()
        with patient_output(), joined, warnings.catch_warnings():
            warnings.showwarning = show
            return work()
    except (ValueError, TypeError, OSError, ImportError, UsageError) as error:
        notes = getattr(error, "__notes__", ())
        said = in_flags(str(error), arguments)
        return end(3 if _not_finite(error) else 2, "; ".join([f"error: {said}", *notes]))
    except KeyboardInterrupt as error:
        number = error.args[0] if error.args else signal.SIGINT
        return end(128 + number, "; ".join(["interrupted", *getattr(error, "__notes__", ())]))
    except (MemoryError, RuntimeError) as error:
        from pyro_dpvae.cli.processes import ended_elsewhere

        if ended_elsewhere(error):
            return end(1, f"error: another process of the command has stopped ({error})")
        if not _out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "no more is left"
        return end(
            2,
            f"error: out of memory: {reason}; use a smaller --batch-size or smaller networks",
        )


def _alone() -> bool:
    """Return whether no other process can belong to the command, without importing PyTorch."""
    return os.environ.get("WORLD_SIZE", "1") == "1" and "torch.distributed" not in sys.modules


def _not_finite(error: Exception) -> bool:
    training = sys.modules.get("pyro_dpvae.training")  # what is not imported has raised nothing
    return training is not None and isinstance(error, training.NonFiniteError)


def _out_of_memory(error: Exception) -> bool:
    import torch

    # The CPU's allocator has no class of errors of its own.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(
        error
    )
