"""Tables of a page: metrics with intervals, what they mean, how they were measured."""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from pyro_dpvae.evaluation import Difference
from pyro_dpvae.report.charts import interval_drawing
from pyro_dpvae.report.columns import Column
from pyro_dpvae.report.markup import Markup, element, joined
from pyro_dpvae.report.meanings import meaning_of
from pyro_dpvae.report.numbers import plain_number, with_interval

__all__ = ["meanings_table", "metrics_table", "scrolling", "settings_table", "table"]


def table(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    class_: str | None = None,
) -> Markup:
    """Return a table whose first column heads its rows, in a box that scrolls by itself.

    Its style has the number of columns, for layouts that reorder them.
    """
    head = element(
        "tr", *(cell if _is_cell(cell) else element("th", cell, scope="col") for cell in header)
    )
    body = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(cell if _is_cell(cell) else element("td", cell) for cell in row[1:]),
        )
        for row in rows
    ]
    content = element(
        "table",
        element("caption", caption),
        element("thead", head),
        element("tbody", *body),
        class_=class_,
        style=f"--columns: {len(header)}",
    )
    return scrolling(content, caption)


def scrolling(content: str, label: str) -> Markup:
    """Return a box that scrolls sideways, also by keys, where its content is wide."""
    return element("div", content, class_="scroll", tabindex=0, role="region", aria_label=label)


def metrics_table(title: str, metrics: Sequence[str], columns: Sequence[Column]) -> Markup:
    """Return the values of metrics in each column, and their differences from the first."""
    first, several = columns[0].label, len(columns) > 1
    nothing = [meaning_of(name).title for name in metrics if _is_nothing(name, columns)]
    shown = [name for name in metrics if not _is_nothing(name, columns)]
    header: list[str] = ["metric", *(_chip(index, one) for index, one in enumerate(columns))]
    header.append("95 % intervals")
    header += [
        element("th", f"{one.label} \N{MINUS SIGN} {first}", scope="col", class_="difference")
        for one in columns[1:]
    ]
    rows = [
        [
            _name(name),
            *(_value(one.values.get(name)) for one in columns),
            _drawing(name, columns),
            *(_difference(name, one) for one in columns[1:]),
        ]
        for name in shown
    ]
    told = table(title, header, rows, class_="metrics") if rows else None
    if not nothing:
        return joined(told)
    text = f"0{' in every column' if several else ''}, with too few draws for an interval: "
    return joined(told, element("p", text + "; ".join(nothing) + ".", class_="muted"))


def meanings_table(metrics: Sequence[str]) -> Markup:
    """Return what each metric means; one line for those of one meaning."""
    meanings = [meaning_of(name) for name in metrics]
    rows = []
    for text, group in groupby(meanings, key=lambda one: one.text):
        alike = list(group)
        title = alike[0].title if len(alike) == 1 else alike[0].title.split(",")[0]
        better = f"{alike[0].better} is better" if alike[0].better else "neither is better"
        rows.append([title, text, better])
    return table(
        "What the numbers mean", ["metric", "what it is", "direction"], rows, class_="text"
    )


def settings_table(
    metrics: Sequence[str], found: Sequence[tuple[str, Mapping[str, Mapping[str, Any]]]]
) -> Markup:
    """Return how each metric was measured in each run.

    Args:
        metrics: their names.
        found: of each run its label, and its metrics with their settings.
    """
    rows = [
        [meaning_of(name).title, *(_settings(entries.get(name)) for _, entries in found)]
        for name in metrics
    ]
    header = ["metric", *(label for label, _ in found)]
    return table("How they were measured", header, rows, class_="text")


def _chip(index: int, column: Column) -> Markup:
    more = f" ({len(column.members)} seeds)" if len(column.members) > 1 else None
    return joined(element("span", column.label, class_=f"chip r{index % 8}"), more)


def _is_nothing(name: str, columns: Sequence[Column]) -> bool:
    """Return whether a metric is 0 throughout for want of draws, as leakage of far thresholds."""
    found = [one.values[name] for one in columns if name in one.values]
    return all(value == 0 and math.isnan(half) for value, half in found)


def _name(name: str) -> Markup:
    meaning = meaning_of(name)
    hint = {"lower": "lower is better", "higher": "higher is better"}.get(meaning.better or "")
    arrow = {"lower": "↓", "higher": "↑"}.get(meaning.better or "")
    return joined(
        element("span", meaning.title, title=meaning.text or None),
        arrow and element("abbr", f" {arrow}", title=hint),
    )


def _value(found: tuple[float, float] | None) -> Markup:
    if found is None:
        return element("td", "not measured", class_="absent")
    return element("td", with_interval(*found), class_="number")


def _drawing(name: str, columns: Sequence[Column]) -> Markup:
    intervals = [
        None if (found := one.values.get(name)) is None else (index % 8, *found)
        for index, one in enumerate(columns)
    ]
    within = None
    known = [one for one in intervals if one is not None]
    if len(known) == 1 and meaning_of(name).share:
        within = (0.0, 1.0)
    elif len(known) == 1:  # against zero, as there is nothing else
        value, half = known[0][1:]
        ends = [value - half, value + half] if math.isfinite(half) else [value]
        within = min(0.0, *ends), max(0.0, *ends)
        within = within if within[0] < within[1] else (0.0, 1.0)
    return element("td", interval_drawing(intervals, within=within), class_="drawing")


def _difference(name: str, column: Column) -> Markup:
    found = column.differences.get(name)
    if found is None:
        text = "not comparable" if name in column.incomparable else "\N{EN DASH}"
        return element("td", text, class_="absent difference")
    verdict = _verdict(name, found)
    paired = found.how if found.how.startswith("paired") else None
    return element(
        "td",
        with_interval(found.value, found.half_width, signed=True),
        element("small", verdict, class_=verdict),
        paired and element("small", paired),
        class_="number difference",
        title=f"from {found.how}",
    )


def _verdict(name: str, found: Difference) -> str:
    """Return what a difference says, if its interval is known and without zero."""
    if not math.isfinite(found.half_width):
        return "interval unknown"
    if not found.reliable:
        return "unreliable"
    if found.value == found.half_width == 0:
        return "equal"
    if abs(found.value) <= found.half_width:
        return "not clear"
    better = meaning_of(name).better
    if better is None:
        return "differs"
    return "better" if (found.value < 0) == (better == "lower") else "worse"


def _settings(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "not measured"
    return ", ".join(f"{key} {_plain(value)}" for key, value in entry["settings"].items())


def _plain(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value if isinstance(value, str) else json.dumps(value)
    return plain_number(value)


def _is_cell(content: str) -> bool:
    return isinstance(content, Markup) and content.startswith(("<td", "<th"))
