"""``dpvae compare RUN RUN ...``: evaluated runs side by side, evaluated first on request."""

import math

from jsonargparse import Namespace

from pyro_dpvae.cli.devices import chosen_device
from pyro_dpvae.cli.measuring import measure
from pyro_dpvae.evaluation import Comparison, Difference, compare_runs, compare_seeds
from pyro_dpvae.evaluation.table import letter, text_table
from pyro_dpvae.recipes import open_run
from pyro_dpvae.runs import RunFolder

__all__ = ["main"]


def main(options: Namespace) -> int:
    """Print the comparison of runs; returns the exit status."""
    if options.evaluate:
        for run in options.runs:
            RunFolder.open(run)  # before any is measured
        device = chosen_device(options.device)
        for run in dict.fromkeys(options.runs):
            measure(open_run(run, device), options)
    print(_table((compare_seeds if options.seeds else compare_runs)(options.runs)))
    return 0


def _table(comparison: Comparison) -> str:
    letters = [letter(index) for index in range(len(comparison.columns))]
    titles = [f"{one}  {title}" for one, title in zip(letters, comparison.columns, strict=True)]
    options = [
        f"   {option}: {'  |  '.join(found)}" for option, found in comparison.differing.items()
    ]
    rows = [["", *letters, *(f"{one} - A" for one in letters[1:])]]
    for name, values in comparison.values.items():
        rows.append([name, *map(_value, values), *map(_difference, comparison.differences[name])])
    kinds = {one.how for row in comparison.differences.values() for one in row if one is not None}
    notes = [
        "values +- standard errors; differences +- half their interval of 95 %, "
        f"from {', '.join(sorted(kinds))}",
        "* an interval without zero; p: paired",
    ]
    return "\n".join([*titles, *options, "", text_table(rows), "", *notes])


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
