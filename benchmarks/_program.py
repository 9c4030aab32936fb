"""What the benchmark programs share: their options, and the report on screen and as JSON."""

import argparse
import json
import platform
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from benchmarks._alternate import ratios

__all__ = ["parse", "report", "write"]


def parse(program: str, *, quick: str) -> argparse.Namespace:
    """Return the options ``quick`` and ``json`` of ``python -m benchmarks.<program>``."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{program}")
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--json", type=Path, help="where the results go")
    return parser.parse_args()


Case = Callable[[], Mapping[str, Callable[[], object]]]
"""What makes the steps of a case's variants when its turn comes."""


def report(cases: Mapping[str, tuple[Case, str]], *, options: argparse.Namespace) -> None:
    """Measure on one thread, print and write.

    Args:
        cases: by name; each with the variant that its others are divided by.
        options: from ``parse``.
    """
    torch.set_num_threads(1)
    rounds, seconds = (2, 0.0) if options.quick else (15, 0.5)
    results = {}
    for name, (make, base) in cases.items():
        results[name] = ratios(make(), base=base, rounds=rounds, seconds=seconds)
        for variant, found in results[name].items():
            print(
                f"{name:10}{variant:12} {found['ratio']:.2f} "
                f"[{found['q1']:.2f}, {found['q3']:.2f}]   {found['milliseconds']:.1f} ms"
            )
    write(results, options=options)


def write(results: Mapping[str, object], *, options: argparse.Namespace) -> None:
    """Write results as JSON where the options say, with the hardware and PyTorch's version."""
    if options.json is not None:
        hardware = {"processor": platform.processor() or platform.machine(), "threads": 1}
        written = {"hardware": hardware, "torch": torch.__version__, **results}
        options.json.write_text(json.dumps(written, indent=2))
