"""What the benchmark programs share: their options, and the report on screen and as JSON."""

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks._alternate import over, ratios
from benchmarks._peers import cache

__all__ = ["beside_peer", "parse", "report", "text", "write"]


def parse(program: str, *, quick: str, peers: str | None = None) -> argparse.Namespace:
    """Return the options of ``python -m benchmarks.<program>``.

    Args:
        program: its name.
        quick: what the option ``quick`` does.
        peers: the libraries that ``--peers`` measures, if the program has this option.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{program}")
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--json", type=Path, help="where the results go")
    if peers is not None:
        parser.add_argument(
            "--peers",
            action="store_true",
            help=f"also measure {peers}, in environments of their own with pinned versions",
        )
        parser.add_argument(
            "--environments",
            type=Path,
            default=cache(),
            help="the folder of these environments, which are created once (default: %(default)s)",
        )
    return parser.parse_args()


_PEER = "numpyro"
Case = Callable[[], Mapping[str, Callable[[], object]]]
"""What makes the steps of a case's variants when its turn comes."""


def report(cases: Mapping[str, tuple[Case, str]], *, options: argparse.Namespace) -> None:
    """Measure on one thread by processor time, print and write.

    Where one of the variants is NumPyro's, the others are also divided by that. The ``note`` of a
    step that has one stands at the end of its row.

    Args:
        cases: by name; each with the variant that its others are divided by.
        options: from ``parse``.
    """
    torch.set_num_threads(1)
    rounds, seconds = (2, 0.0) if options.quick else (15, 0.5)
    results = {}
    for name, (make, base) in cases.items():
        steps = make()
        found = ratios(steps, base=base, rounds=rounds, seconds=seconds, clock=time.process_time)
        results[name] = found
        for variant, values in found.items():
            row = f"{name:10}{variant:14} {text(values)}   {values['milliseconds']:5.1f} ms"
            row += f"{beside_peer(values, found)}   {getattr(steps[variant], 'note', '')}"
            print(row.rstrip(), flush=True)
    write(results, options=options)


def beside_peer(values: dict[str, Any], found: Mapping[str, Mapping[str, Any]]) -> str:
    """Divide a variant's rounds by NumPyro's, if that is among the variants; return the text."""
    if _PEER not in found:
        return ""
    values[f"over_{_PEER}"] = over(values["rounds"], found[_PEER]["rounds"])
    return f"   {text(values[f'over_{_PEER}'])} of {_PEER}"


def text(found: Mapping[str, float]) -> str:
    """Return a ratio with its quartiles, for a table."""
    return f"{found['ratio']:.2f} [{found['q1']:.2f}, {found['q3']:.2f}]"


def write(results: Mapping[str, object], *, options: argparse.Namespace) -> None:
    """Write results as JSON where the options say, with the hardware and PyTorch's version."""
    if options.json is not None:
        hardware = {"processor": platform.processor() or platform.machine(), "threads": 1}
        written = {"hardware": hardware, "torch": torch.__version__, **results}
        options.json.write_text(json.dumps(written, indent=2))
