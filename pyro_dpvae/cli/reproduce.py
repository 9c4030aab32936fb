"""``dpvae reproduce``: what a paper shows, from runs of its recipes."""

from importlib import import_module

from pyro_dpvae.cli.options.reproduce import Target

__all__ = ["main"]

_HELP = """\
usage: dpvae reproduce TARGET [OPTIONS]

Train and measure what the paper of the decoupled prior shows. Interrupted, the same command
goes on.

  dpvae reproduce table1   the twelve models, measured, and what becomes of the paper's claims
  dpvae reproduce figures  figures 1, 3, 4, 5, 6 and 8

'dpvae reproduce TARGET --help' lists the options of a target.
"""


def main(target: Target | None) -> int:
    """Reproduce a target, or print which there are; returns the exit status."""
    if target is None:
        print(_HELP, end="")
        return 0
    status: int = import_module(f"pyro_dpvae.cli.{target.name}").main(target.options)
    return status
