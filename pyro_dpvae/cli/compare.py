"""``dpvae compare RUN RUN ...``: evaluated runs side by side, evaluated first on request."""

import json
import math

from jsonargparse import Namespace

from pyro_dpvae.cli.devices import chosen_device
from pyro_dpvae.cli.measuring import measure
from pyro_dpvae.cli.metrics import folded, in_words
from pyro_dpvae.evaluation import Comparison, Difference, compare_runs, compare_seeds
from pyro_dpvae.evaluation.compare import half_width
from pyro_dpvae.evaluation.table import csv_table, latex_table, letter, text_table
from pyro_dpvae.recipes import open_run
from pyro_dpvae.report.numbers import with_interval
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
    comparison = (compare_seeds if options.seeds else compare_runs)(options.runs)
    chosen = [name for name in _FORMATS if options[name]]
    if len(chosen) > 1:
        raise ValueError(
            f"a comparison is printed in one format, got --{' and --'.join(chosen)}; give one"
        )
    print(_FORMATS[chosen[0]](comparison) if chosen else _table(comparison))
    return 0


def _table(comparison: Comparison) -> str:
    titles = [f"{letter(index)}  {title}" for index, title in enumerate(comparison.columns)]
    options = [
        f"   {option}: {'  |  '.join(found)}" for option, found in comparison.differing.items()
    ]
    rows, note = _rows(comparison)
    kinds = {one.how for row in comparison.differences.values() for one in row if one is not None}
    notes = [
        *note,
        "values and differences ± half their interval of 95 %, that of differences from "
        f"{', '.join(sorted(kinds))}",
        "* an interval without zero; p: paired; ? unreliable, as k-hat is above 0.7 for more than "
        "5 % of a run's data: evaluate with more --nll-samples, or train a better guide",
    ]
    return "\n".join([*titles, *options, "", text_table(rows, align="<<<>"), "", *notes])


def _latex(comparison: Comparison) -> str:
    return latex_table(_rows(comparison)[0])


def _rows(comparison: Comparison) -> tuple[list[list[str]], list[str]]:
    """Return a row for each metric below a header, and a line on metrics without a row."""
    letters = [letter(index) for index in range(len(comparison.columns))]
    values = _with_widths(comparison)
    shown, note = folded(values)
    rows = [["metric", "unit", "better", *letters, *(f"{one} - A" for one in letters[1:])]]
    for name in shown:
        differences = map(_difference, comparison.differences[name])
        rows.append([name, *in_words(name), *map(_value, values[name]), *differences])
    return rows, note


def _with_widths(comparison: Comparison) -> dict[str, list[tuple[float, float] | None]]:
    """Return values with half their intervals: of seeds Student's t, of single runs normal."""
    counts = [len(members) for members in comparison.members]
    repetitions = [None if count == 1 else count for count in counts]
    return {
        name: [
            None if one is None else (one[0], half_width(one[1], repetitions=count))
            for one, count in zip(row, repetitions, strict=True)
        ]
        for name, row in comparison.values.items()
    }


def _csv(comparison: Comparison) -> str:
    header = "metric unit better runs value half_width"
    header += " difference difference_half_width how reliable"
    rows: list[list[object]] = [list(header.split())]
    for name, values in _with_widths(comparison).items():
        gaps = [None, *comparison.differences[name]]
        for members, value, gap in zip(comparison.members, values, gaps, strict=True):
            row: list[object] = [name, *in_words(name), " ".join(members)]
            row += ["", ""] if value is None else map(_known, value)
            row += [""] * 4 if gap is None else _gap(gap)
            rows.append(row)
    return csv_table(rows)


def _gap(gap: Difference) -> list[object]:
    return [gap.value, _known(gap.half_width), gap.how, str(gap.reliable).lower()]


def _json(comparison: Comparison) -> str:
    metrics = {}
    for name, values in _with_widths(comparison).items():
        unit, better = in_words(name)
        metrics[name] = {
            "unit": unit or None,
            "better": better or None,
            "values": [
                None if one is None else {"value": one[0], "half_width": _known(one[1])}
                for one in values
            ],
            "differences": [
                None
                if gap is None
                else {
                    "value": gap.value,
                    "half_width": _known(gap.half_width),
                    "how": gap.how,
                    "reliable": gap.reliable,
                }
                for gap in comparison.differences[name]
            ],
        }
    content = {
        "columns": comparison.members,
        "differing": {
            option: [json.loads(one) for one in found]
            for option, found in comparison.differing.items()
        },
        "metrics": metrics,
    }
    return json.dumps(content, indent=2)


_FORMATS = {"json": _json, "csv": _csv, "latex": _latex}


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number


def _value(value: tuple[float, float] | None) -> str:
    return "-" if value is None else with_interval(*value)


def _difference(difference: Difference | None) -> str:
    if difference is None:
        return "-"
    text = with_interval(difference.value, difference.half_width, signed=True)
    clear = "*" if abs(difference.value) > difference.half_width else " "
    clear = clear if difference.reliable else "?"
    paired = "p" if difference.how.startswith("paired") else " "
    return f"{text}{clear}{paired}"
