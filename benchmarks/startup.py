"""What it takes to start: an import of the library, and the command line's help.

    python -m benchmarks.startup

Each is a process of its own, in processor time, and is divided by the time of ``import torch,
pyro`` in the same round. Medians with quartiles over nine rounds.
"""

import os
import resource
import subprocess
import sys

from benchmarks._alternate import ratios
from benchmarks._program import parse, write

BASE = "import torch, pyro"
PROGRAMS = {
    "pass": ("-c", "pass"),
    BASE: ("-c", BASE),
    **{
        program: ("-c", program)
        for program in ("import pyro_dpvae", "from pyro_dpvae import *", "import pyro_dpvae.cli")
    },
    **{
        f"dpvae {command}": ("-m", "pyro_dpvae", *command.split())
        for command in (
            *("--help", "--version", "recipes", "compare --help", "demo --help"),
            *("evaluate --help", "explore --help", "plot --help", "report --help"),
            *("sample --help", "train --help"),
        )
    },
}


def children_seconds() -> float:
    """Return the processor time of all processes that this one has started and seen end."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def start(*arguments: str) -> None:
    """Run Python with some arguments to its end."""
    # An installed library has its byte code, and a checkout after its first import.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    subprocess.run(
        [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=environment
    )


def main() -> None:
    """Measure, print and write."""
    options = parse("startup", quick="one round, to test this program")
    found = ratios(
        {name: lambda given=given: start(*given) for name, given in PROGRAMS.items()},
        base=BASE,
        rounds=1 if options.quick else 9,
        seconds=0.0,
        clock=children_seconds,
    )
    for name, one in found.items():
        print(
            f"{name:32}{one['ratio']:.3f} [{one['q1']:.3f}, {one['q3']:.3f}]   "
            f"{one['milliseconds']:.0f} ms"
        )
    write({"startup": found}, options=options)


if __name__ == "__main__":
    main()
