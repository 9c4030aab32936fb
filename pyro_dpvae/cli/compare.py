"""``dpvae compare RUN RUN ...``: evaluated runs side by side, evaluated first on request."""

import math

from jsonargparse import Namespace

from pyro_dpvae.cli.devices import chosen_device
from pyro_dpvae.cli.measuring import measure
from pyro_dpvae.evaluation import Comparison, Difference, compare_runs, compare_seeds
from pyro_dpvae.recipes import open_system
from pyro_dpvae.runs import RunFolder

__all__ = ["main"]

_WIDTH = 24


def main(options: Namespace) -> int:
    """Print the comparison of runs; returns the exit status."""
    if options.evaluate:
        for run in options.runs:
            RunFolder.open(run)  # before any is measured
        device = chosen_device(options.device)
        for run in dict.fromkeys(options.runs):
            measure(open_system(run, device), options)
    print(_table((compare_seeds if options.seeds else compare_runs)(options.runs)))
    return 0


def _table(comparison: Comparison) -> str:
    letters = [chr(ord("A") + index) for index in range(len(comparison.columns))]
    lines = [
        f"{letter}  {title}" for letter, title in zip(letters, comparison.columns, strict=True)
    ]
    for option, found in comparison.differing.items():
        lines.append(f"   {option}: {'  |  '.join(found)}")
    name_width = max(map(len, comparison.values), default=0) + 2
    header = "".join(f"{letter:>{_WIDTH}}" for letter in letters)
    header += "".join(f"{letter + ' - A':>{_WIDTH}}" for letter in letters[1:])
    lines += ["", f"{'':{name_width}}{header}"]
    for name, values in comparison.values.items():
        row = "".join(f"{_value(value):>{_WIDTH}}" for value in values)
        row += "".join(f"{_difference(one):>{_WIDTH}}" for one in comparison.differences[name])
        lines.append(f"{name:{name_width}}{row}")
    kinds = {one.how for row in comparison.differences.values() for one in row if one is not None}
    lines += [
        "",
        "values +- standard errors; differences +- half their interval of 95 %, "
        f"from {', '.join(sorted(kinds))}",
        "* an interval without zero; p: paired",
    ]
    return "\n".join(lines)


def _value(value: tuple[float, float] | None) -> str:
    if value is None:
        return "-"
    return f"{value[0]:.4f}" + ("" if math.isnan(value[1]) else f" +- {value[1]:.4f}")


def _difference(difference: Difference | None) -> str:
    if difference is None:
        return "-"
    if math.isnan(difference.half_width):
        return f"{difference.value:+.4f}  "
    clear = "*" if abs(difference.value) > difference.half_width else " "
    paired = "p" if difference.how.startswith("paired") else " "
    return f"{difference.value:+.4f} +- {difference.half_width:.4f}{clear}{paired}"
