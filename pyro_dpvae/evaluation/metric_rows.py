"""Rows of metrics with unit, direction, intervals and verdicts: the same in every table."""

import math
from collections.abc import Callable, Mapping, Sequence

from pyro_dpvae.evaluation.compare import Comparison, Difference
from pyro_dpvae.evaluation.meanings import meaning_of
from pyro_dpvae.evaluation.numbers import with_interval
from pyro_dpvae.evaluation.table import letter

__all__ = ["EXPLANATION", "folded", "metric_rows", "verdict"]

EXPLANATION = (
    "Values and differences ± half their 95 % interval: normal for the value of one run, "
    "Student's t over seeds. A share has the ends of its 95 % interval in brackets. A difference "
    "is better or worse if its interval excludes zero, otherwise not clear; if nothing differs, "
    "about one of twenty intervals excludes zero by chance. A difference of likelihoods is "
    "unreliable if k-hat is above 0.7 for more than 5 % of the data of a run: evaluate with more "
    "samples, or train a better guide."
)


def folded(
    values: Mapping[str, Sequence[tuple[float, float] | None]],
) -> tuple[list[str], list[str]]:
    """Return the metrics that get a row, and a line that names the metrics without one.

    Metrics without a row are 0 in all columns for lack of samples, as leakage below a threshold
    that no sample falls below.

    Args:
        values: by metric, the value and half its interval in each column, NaN if it is unknown.
    """
    empty = [
        name
        for name, row in values.items()
        if all(one is None or (one[0] == 0 and not one[1] > 0) for one in row)
        and any(one is not None and math.isnan(one[1]) for one in row)
    ]
    shown = [name for name in values if name not in empty]
    return shown, [f"0, with too few draws for an interval: {', '.join(empty)}"] * bool(empty)


def verdict(metric: str, difference: Difference) -> str:
    """Return what a difference says: a word that depends on the interval and the metric alone.

    Example:
        >>> verdict("nll", Difference(-2.0, 0.5, "seeds"))
        'better'
    """
    if not math.isfinite(difference.half_width):
        return "interval unknown"
    if not difference.reliable:
        return "unreliable"
    if difference.value == difference.half_width == 0:
        return "equal"
    if abs(difference.value) <= difference.half_width:
        return "not clear"
    better = meaning_of(metric).better
    if not better:
        return "differs"
    return "better" if (difference.value < 0) == (better == "lower") else "worse"


def metric_rows(
    comparison: Comparison,
    metrics: Sequence[str] | None = None,
    *,
    cell: Callable[[str, str, str], str] = "{} {}, {}".format,
) -> tuple[list[list[str]], list[str]]:
    """Return a header with a row for each metric below it, and a line on folded metrics.

    Columns are the metric, its unit, which values are better, its value in each column of the
    comparison, and the difference of each further column from the first.

    Args:
        comparison: the runs, or groups of runs.
        metrics: which ones, by default all.
        cell: makes a difference's cell of its number, its verdict and where its interval is from.
    """
    letters = [letter(index) for index in range(len(comparison.columns))]
    values = comparison.intervals(metrics)
    shown, note = folded(values)
    header = ["metric", "unit", "better", *letters]
    rows = [[*header, *(f"{one} - {letters[0]}" for one in letters[1:])]]
    for name in shown:
        meaning = meaning_of(name)
        row = [name, meaning.unit, meaning.better]
        share = meaning.unit == "share"
        row += ["-" if one is None else with_interval(*one, share=share) for one in values[name]]
        for value, gap in zip(values[name][1:], comparison.differences[name], strict=True):
            if gap is None:
                both = value is not None and values[name][0] is not None
                row.append("not comparable" if both else "-")
            else:
                number = with_interval(gap.value, gap.half_width, signed=True)
                row.append(cell(number, verdict(name, gap), gap.how))
        rows.append(row)
    return rows, note
