"""The page of runs: a pure function of their contents, filled into the template page.html."""

import base64
import json
import shlex
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pyro_dpvae.evaluation import Comparison, Difference, compare_runs, compare_seeds
from pyro_dpvae.evaluation.compare import differing, flat
from pyro_dpvae.evaluation.kept import value_of
from pyro_dpvae.evaluation.meanings import (
    SECTIONS,
    figure_meaning,
    meaning_of,
    setting_meaning,
)
from pyro_dpvae.evaluation.metric_rows import EXPLANATION, metric_rows
from pyro_dpvae.evaluation.numbers import plain_number
from pyro_dpvae.evaluation.table import html_table, letter
from pyro_dpvae.report.charts import COLOURS, interval_figure, svg
from pyro_dpvae.report.contents import RunContents
from pyro_dpvae.report.training import Placed, charts, part, progress_of, state_rows, title_of

__all__ = ["comparison_of", "metrics_tables", "report_page"]

_ABSENT = "\N{EN DASH}"


def report_page(runs: Sequence[RunContents], *, seeds: bool = False) -> str:
    """Return a self-contained HTML page of runs, the same for the same runs.

    Args:
        runs: at least one; the others are compared with the first.
        seeds: whether runs that differ in their seed alone are repetitions of one system.

    Raises:
        ValueError: if ``seeds`` is given and runs do not form groups, or are not evaluated alike.
    """
    if seeds:
        comparison, notes = compare_seeds([run.path for run in runs]), list[str]()
    else:
        comparison, notes = comparison_of(runs)
    placed = [_placed(run, at, comparison, seeds=seeds) for at, run in enumerate(runs)]
    drawn, once = charts(placed)
    environment = Environment(
        loader=PackageLoader("pyro_dpvae.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html").render(
        title=" and ".join(dict.fromkeys(map(title_of, runs))),
        placed=placed,
        facts=[_facts(run) for run in runs],
        configuration=_configuration(placed),
        states=html_table(state_rows(placed), caption="Where training stands"),
        legend={one.label: one for one in reversed(placed)},
        charts=drawn,
        once=once,
        explanation=EXPLANATION,
        metrics=metrics_tables(runs, comparison),
        meanings=_meanings(comparison),
        settings=_settings(placed, comparison),
        metric_notes=notes,
        missing=[(one.name, *found) for one in placed if (found := _missing(one.run))],
        figures=_figures(placed),
        versions=_versions(runs),
    )
    return f"{text}\n"


def comparison_of(runs: Sequence[RunContents]) -> tuple[Comparison, list[str]]:
    """Return the metrics of runs, compared with the first, and why some are not comparable."""
    metrics = dict.fromkeys(name for run in runs for name in run.metrics)
    values = {name: [value_of(run.metrics, name) for run in runs] for name in metrics}
    differences: dict[str, list[Difference | None]] = {name: [] for name in metrics}
    notes = []
    for index, run in enumerate(runs[1:], 1):
        found: Mapping[str, Sequence[Difference | None]] = {}
        if run.metrics and runs[0].metrics:
            try:
                compared = compare_runs([runs[0].path, run.path])
                found = compared.differences
                notes.extend(compared.notes)
            except (ValueError, OSError) as error:
                notes.append(f"{letter(index)} is not compared with A: {error}")
        for name, row in differences.items():
            row.append(found[name][0] if name in found else None)
    paths = [run.path for run in runs]
    members = [[path] for path in paths]
    configs = [run.config for run in runs]
    return Comparison(paths, values, differences, differing(configs), members), notes


def metrics_tables(runs: Sequence[RunContents], comparison: Comparison) -> list[dict[str, Any]]:
    """Return a table of metrics for each section that has any, and the lines on folded metrics."""
    tables = []
    for title, groups in SECTIONS.items():
        names = dict.fromkeys(
            name for group in groups for run in runs for name in run.groups.get(group, ())
        )
        measured = [name for name in names if name in comparison.values]
        rows, note = metric_rows(comparison, measured, cell=_difference)
        intervals, columns = comparison.intervals(), len(comparison.columns)
        for row in rows[1:]:
            meaning = meaning_of(row[0])
            drawing = interval_figure(intervals[row[0]], share=meaning.unit == "share")
            row.insert(3 + columns, svg(drawing))
            row[0] = Markup('<span title="{}">{}</span>').format(meaning.text, meaning.title)
        rows[0].insert(3 + columns, "95 % intervals")
        counts = [len(members) for members in comparison.members]
        for at, count in enumerate(counts, 3):
            rows[0][at] += f" ({count} seeds)" if count > 1 else ""
        if measured:
            table = html_table(rows, caption=title, align="<<<" + ">" * columns + "<>")
            tables.append({"title": title, "table": table if rows[1:] else "", "note": note})
    return tables


def _difference(number: str, verdict: str, how: str) -> Markup:
    cell = Markup('{} <small class="{}">{}</small> <small>{}</small>')
    return cell.format(number, verdict, verdict, how)


def _placed(run: RunContents, column: int, comparison: Comparison, *, seeds: bool) -> Placed:
    if seeds:
        column = next(at for at, paths in enumerate(comparison.members) if run.path in paths)
    label = letter(column)
    name = f"{label}, seed {run.config.get('seed')}" if seeds else label
    return Placed(run, label, name, column % COLOURS)


def _facts(run: RunContents) -> dict[str, str]:
    return {
        "data": str(run.config.get("data")),
        "prior": part(run, "prior"),
        "objective": part(run, "objective"),
        "model, guide": f"{part(run, 'model')}, {part(run, 'guide')}",
        "dimensions of z": str(run.latent_dim or run.config.get("latent_dim") or "unknown"),
        "likelihood": part(run, "likelihood"),
        "training": progress_of(run),
    }


def _configuration(placed: Sequence[Placed]) -> dict[str, Any]:
    """Return the options in which runs differ, as a table, and one of all other options."""
    configs = [one.run.config for one in placed]
    options = [flat(config) for config in configs]
    different = differing(configs)
    header = ["option", *(one.name for one in placed)]
    marked = [header]
    for name, values in different.items():
        first, *texts = map(_text, values)
        cells = [
            Markup("<mark>{}</mark>").format(text) if text != first else text for text in texts
        ]
        marked.append([name, first, *cells])
    rest = [name for name in dict.fromkeys(name for one in options for name in one)]
    rest = [name for name in rest if name not in different]
    rows = [header, *([name, *(_text(one.get(name)) for one in options)] for name in rest)]
    return {
        "differing": html_table(marked, caption="What differs") if different else "",
        "others": html_table(rows),
        "count": len(rest),
    }


def _text(value: Any) -> str:
    """Return the value of an option or a setting as text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return plain_number(value)
    return _ABSENT if value is None else value if isinstance(value, str) else json.dumps(value)


def _meanings(comparison: Comparison) -> Markup:
    """Return what each metric means; one row for metrics of one meaning."""
    rows = [["metric", "definition", "unit", "better"]]
    meanings = [meaning_of(name) for name in comparison.values]
    for text, group in groupby(meanings, key=lambda one: one.text):
        first, *others = group
        title = first.title.split(",")[0] if others else first.title
        rows.append([title, text, first.unit, first.better or "neither"])
    return html_table(rows)


def _settings(placed: Sequence[Placed], comparison: Comparison) -> Markup:
    """Return how each metric was measured in each run."""
    rows = [["metric", *(one.name for one in placed)]]
    for name in comparison.values:
        entries = [one.run.metrics.get(name) for one in placed]
        rows.append([meaning_of(name).title])
        for entry in entries:
            settings = (entry or {}).get("settings", {}).items()
            text = Markup(", ").join(
                Markup('<span title="{}">{}</span> {}').format(
                    setting_meaning(key), key, _text(value)
                )
                for key, value in settings
            )
            rows[-1].append("not measured" if entry is None else text)
    return html_table(rows)


def _missing(run: RunContents) -> tuple[str, str] | None:
    """Return what is not measured of a run, with the command that measures it."""
    command = f"dpvae evaluate {shlex.quote(run.path)}"
    if not run.metrics:
        return "is not evaluated", command
    if not run.unmeasured:
        return None
    groups = ",".join(run.unmeasured)
    return f"has no {', '.join(run.unmeasured)}", f"{command} --metrics {groups}"


def _figures(placed: Sequence[Placed]) -> list[dict[str, Any]]:
    names = dict.fromkeys(name for one in placed for name in one.run.figures)
    return [
        {
            "name": name,
            "title": name.replace("_", " "),
            "meaning": figure_meaning(name),
            "pictures": [
                (one, base64.b64encode(one.run.figures[name]).decode())
                for one in placed
                if name in one.run.figures
            ],
        }
        for name in names
    ]


def _versions(runs: Sequence[RunContents]) -> str:
    found: dict[str, None] = {}
    for run in runs:
        for record in run.records:
            if isinstance(versions := record.get("versions"), dict):
                found |= {f"{name} {number}": None for name, number in versions.items()}
    return ", ".join(found)
