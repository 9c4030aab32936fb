"""``dpvae compare RUN RUN ...``: evaluated runs side by side, with differences."""

import json
import math
from textwrap import fill
from typing import Any

from jsonargparse import Namespace

from pyro_dpvae.cli.devices import chosen_device
from pyro_dpvae.cli.measuring import measure
from pyro_dpvae.evaluation import Comparison, Difference, compare_runs, compare_seeds
from pyro_dpvae.evaluation.meanings import meaning_of
from pyro_dpvae.evaluation.metric_rows import EXPLANATION, metric_rows
from pyro_dpvae.evaluation.numbers import interval_ends
from pyro_dpvae.evaluation.table import csv_table, latex_table, letter, text_table
from pyro_dpvae.recipes import open_run
from pyro_dpvae.runs import RunFolder

__all__ = ["main"]


def main(options: Namespace) -> int:
    """Print the comparison of runs; returns the exit status."""
    chosen = [name for name in _FORMATS if options[name]]
    if len(chosen) > 1:
        raise ValueError(
            f"a comparison is printed in one format, got --{' and --'.join(chosen)}; give one"
        )
    if options.evaluate:
        for run in options.runs:
            RunFolder.open(run)  # before any is measured
        device = chosen_device(options.device)
        for run in dict.fromkeys(options.runs):
            measure(open_run(run, device), options)
    comparison = (compare_seeds if options.seeds else compare_runs)(options.runs)
    print(_FORMATS[chosen[0]](comparison) if chosen else _table(comparison))
    return 0


def _table(comparison: Comparison) -> str:
    titles = [f"{letter(index)}  {title}" for index, title in enumerate(comparison.columns)]
    options = [
        f"   {option}: {'  |  '.join(map(json.dumps, found))}"
        for option, found in comparison.differing.items()
    ]
    rows, note = metric_rows(comparison)
    below = [*note, *comparison.notes, fill(EXPLANATION, 99)]
    return "\n".join([*titles, *options, "", text_table(rows, align="<<<>"), "", *below])


def _csv(comparison: Comparison) -> str:
    header = "metric unit better runs value low high"
    header += " difference difference_low difference_high how reliable"
    rows: list[list[object]] = [list(header.split())]
    for name, found in _metrics(comparison).items():
        gaps = [None, *found["differences"]]
        for members, value, gap in zip(comparison.members, found["values"], gaps, strict=True):
            ends = value or dict.fromkeys(("value", "low", "high"), "")
            other = gap or dict.fromkeys(header.split()[-5:], "")
            cells = [*ends.values(), *other.values()]
            texts = (str(one).lower() if isinstance(one, bool) else one for one in cells)
            row = [name, found["unit"] or "", found["better"] or "", " ".join(members)]
            rows.append([*row, *texts])
    return csv_table(rows)


def _gap(gap: Difference) -> dict[str, object]:
    ends = _with_ends("", gap.value, gap.half_width)
    return {**ends, "how": gap.how, "reliable": gap.reliable}


def _with_ends(metric: str, value: float, half_width: float) -> dict[str, object]:
    """Return a value and the ends of its 95 % interval; None if they are unknown."""
    share = bool(metric) and meaning_of(metric).unit == "share"
    low, high = interval_ends(value, half_width, share=share)
    ends = [None if math.isnan(end) else end for end in (low, high)]
    return {"value": value, "low": ends[0], "high": ends[1]}


def _metrics(comparison: Comparison) -> dict[str, Any]:
    """Return unit, direction, values and differences of each metric, as JSON has them."""
    metrics = {}
    for name, values in comparison.intervals().items():
        meaning = meaning_of(name)
        metrics[name] = {
            "unit": meaning.unit or None,
            "better": meaning.better or None,
            "values": [None if one is None else _with_ends(name, *one) for one in values],
            "differences": [
                None if gap is None else _gap(gap) for gap in comparison.differences[name]
            ],
        }
    return metrics


def _json(comparison: Comparison) -> str:
    content = {
        "columns": comparison.members,
        "differing": comparison.differing,
        "metrics": _metrics(comparison),
        "notes": comparison.notes,
    }
    return json.dumps(content, indent=2)


_FORMATS = {
    "json": _json,
    "csv": _csv,
    "latex": lambda comparison: latex_table(metric_rows(comparison)[0]),
}
