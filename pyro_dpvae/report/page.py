"""The page of runs: a pure function of what is said of them."""

import shlex
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from pyro_dpvae.report.columns import Column, columns_of_runs, columns_of_seeds
from pyro_dpvae.report.configuration import configuration_tables, part
from pyro_dpvae.report.contents import RunContents
from pyro_dpvae.report.markup import Markup, element, joined
from pyro_dpvae.report.meanings import SECTIONS, figure_meaning
from pyro_dpvae.report.pictures import picture
from pyro_dpvae.report.tables import meanings_table, metrics_table, settings_table
from pyro_dpvae.report.training import (
    Placed,
    charts,
    legend,
    progress_of,
    state_table,
    title_of,
)

__all__ = ["report_page"]

_COLOURS = 8


def report_page(runs: Sequence[RunContents], *, seeds: bool = False) -> str:
    """Return a self-contained HTML page of runs, the same for the same runs.

    Args:
        runs: at least one; the first is what others are compared with.
        seeds: whether runs that differ in their seeds alone are repetitions of one system.

    Raises:
        ValueError: if ``seeds`` is asked for and runs do not form groups, or are not evaluated
            alike.
    """
    if seeds:
        columns, notes = columns_of_seeds([run.path for run in runs]), list[str]()
    else:
        columns, notes = columns_of_runs(runs)
    placed = [_placed(run, index, columns, seeds=seeds) for index, run in enumerate(runs)]
    title = " and ".join(dict.fromkeys(title_of(run) for run in runs))
    sections = {
        "configuration": ("Configuration", _configuration(placed)),
        "training": ("Training", joined(state_table(placed), legend(placed), charts(placed))),
        "metrics": ("Metrics", _metrics(placed, columns, notes)),
    }
    if any(run.figures for run in runs):
        sections["figures"] = ("Figures", _figures(placed))
    body = [
        element("header", element("h1", title), _cards(placed), _contents(sections)),
        element(
            "main",
            _notes(placed),
            *(
                element("section", element("h2", heading), content, id=name)
                for name, (heading, content) in sections.items()
            ),
        ),
        element("footer", _footer(runs)),
        element("script", Markup(_resource("page.js"))),
    ]
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(_resource("page.css"))),
    ]
    page = element("html", element("head", *head), element("body", *body), lang="en")
    return f"<!doctype html>\n{page}\n"


@cache
def _resource(name: str) -> str:
    return (files("pyro_dpvae.report") / name).read_text("utf-8")


def _placed(run: RunContents, index: int, columns: Sequence[Column], *, seeds: bool) -> Placed:
    at = index
    if seeds:
        at = next(at for at, column in enumerate(columns) if run.path in column.members)
    label = columns[at].label
    name = f"{label}, seed {run.config.get('seed')}" if seeds else label
    return Placed(run, label, name, at % _COLOURS)


def _cards(placed: Sequence[Placed]) -> Markup:
    return element("div", *map(_card, placed), class_="cards")


def _card(one: Placed) -> Markup:
    config = one.run.config
    facts = {
        "data": str(config.get("data")),
        "prior": part(config, "prior"),
        "objective": part(config, "objective"),
        "model, guide": f"{part(config, 'model')}, {part(config, 'guide')}",
        "dimensions of z": str(one.run.latent_dim or config.get("latent_dim") or "unknown"),
        "likelihood": part(config, "likelihood"),
        "training": progress_of(one.run),
    }
    listed = [joined(element("dt", key), element("dd", value)) for key, value in facts.items()]
    heading = element(
        "p",
        element("span", one.label, class_=f"chip r{one.colour}"),
        " ",
        element("strong", title_of(one.run)),
        element("code", one.run.path),
        class_="name",
    )
    return element("article", heading, element("dl", *listed), class_=f"card r{one.colour}")


def _contents(sections: dict[str, tuple[str, Markup]]) -> Markup:
    links = [element("a", heading, href=f"#{name}") for name, (heading, _) in sections.items()]
    return element("nav", *links, aria_label="Sections")


def _notes(placed: Sequence[Placed]) -> Markup | None:
    items = [
        element("li", element("b", f"{one.name}: "), note)
        for one in placed
        for note in one.run.notes
    ]
    return element("aside", element("ul", *items), class_="notes") if items else None


def _configuration(placed: Sequence[Placed]) -> Markup:
    return configuration_tables([one.run.config for one in placed], [one.name for one in placed])


def _metrics(placed: Sequence[Placed], columns: Sequence[Column], notes: Sequence[str]) -> Markup:
    runs = [one.run for one in placed]
    parts, every = [], list[str]()
    for title, groups in SECTIONS.items():
        names = [name for group in groups for run in runs for name in run.groups.get(group, ())]
        names = [
            name for name in dict.fromkeys(names) if any(name in one.values for one in columns)
        ]
        if names:
            parts.append(metrics_table(title, names, columns))
            every += names
    if every:
        parts.insert(0, _reading(columns))
        found = [(one.name, one.run.metrics) for one in placed]
        for summary, content in (
            ("What the numbers mean", meanings_table(every)),
            ("How they were measured", settings_table(every, found)),
        ):
            parts.append(element("details", element("summary", summary), content))
    said = [element("li", note) for note in notes]
    said += [missing for one in placed if (missing := _missing(one)) is not None]
    if said:
        parts.append(element("ul", *said, class_="note"))
    return joined(*parts)


def _reading(columns: Sequence[Column]) -> Markup:
    repeated = any(len(one.members) > 1 for one in columns)
    text = "Values \N{PLUS-MINUS SIGN} half their interval of 95 %"
    text += ", Student's t over seeds" if repeated else ", from their standard errors"
    text += "; arrows say which way is better."
    if len(columns) > 1:
        text += (
            f" Differences are from {columns[0].label}, paired datum by datum or seed by seed "
            "where they can be; one whose interval holds zero is not clear. Where nothing "
            "differs, of twenty rows about one interval lies beside zero by chance."
        )
    return element("p", text)


def _missing(one: Placed) -> Markup | None:
    """Return what is not measured of a run, with the command that measures it."""
    command = f"dpvae evaluate {shlex.quote(one.run.path)}"
    if not one.run.metrics:
        return element("li", f"{one.name} is not evaluated: ", element("code", command))
    if not one.run.unmeasured:
        return None
    groups = ",".join(one.run.unmeasured)
    return element(
        "li",
        f"{one.name} has no {', '.join(one.run.unmeasured)}: ",
        element("code", f"{command} --metrics {groups}"),
    )


def _figures(placed: Sequence[Placed]) -> Markup:
    names = dict.fromkeys(name for one in placed for name in one.run.figures)
    return joined(*(_figure(name, placed) for name in names))


def _figure(name: str, placed: Sequence[Placed]) -> Markup:
    title = name.replace("_", " ")
    pictures = [
        element(
            "figure",
            element(
                "figcaption",
                element("span", one.label, class_=f"chip r{one.colour}"),
                f" {title_of(one.run)}",
            ),
            element(
                "div",
                picture(one.run.figures[name], alt=f"{title} of {title_of(one.run)}"),
                class_="paper",
            ),
        )
        for one in placed
        if name in one.run.figures
    ]
    return joined(
        element("h3", title),
        element("p", figure_meaning(name), class_="muted"),
        element("div", *pictures, class_=f"pictures {name}"),
    )


def _footer(runs: Sequence[RunContents]) -> str:
    versions: dict[str, None] = {}
    for run in runs:
        for record in run.records:
            if isinstance(found := record.get("versions"), dict):
                versions |= {f"{name} {number}": None for name, number in found.items()}
    return "Trained with " + ", ".join(versions) + "." if versions else ""
