"""Where the training of runs stands, and its curves."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from pyro_dpvae.evaluation.compare import observed_kind
from pyro_dpvae.report.charts import Curve, hidden_values, line_chart, thinned
from pyro_dpvae.report.configuration import part
from pyro_dpvae.report.contents import RunContents
from pyro_dpvae.report.markup import Markup, element, joined
from pyro_dpvae.report.meanings import meaning_of
from pyro_dpvae.report.numbers import plain_number
from pyro_dpvae.report.tables import table

__all__ = ["Placed", "charts", "legend", "progress_of", "state_table"]

_TITLES = {
    "learning_rate": "learning rate",
    "gradient_norm": "norm of gradients",
    "left_out": "steps left out",
}
_ORDER = ("elbo", "loss", "distortion", "rate")
_NATS = ("elbo", "loss", "distortion", "rate")
_OF_DATA = ("elbo", "loss", "distortion")  # what holds log p(x | z)
_ONE_DRAW = ("elbo", "distortion")
_ONE_DRAW_OF_Z = "held out: one draw of z per datum"


@final
@dataclass(frozen=True)
class Placed:
    """A run and its place on a page.

    Attributes:
        run: what is said of it.
        label: a letter; runs that differ in their seeds share one.
        name: the same, with the seed where the letter alone does not tell it.
        colour: its number among the page's colours.
    """

    run: RunContents
    label: str
    name: str
    colour: int


def progress_of(run: RunContents) -> str:
    """Return how many of its steps a run has taken."""
    total = run.config.get("steps")
    if isinstance(total, int):
        return f"{plain_number(run.step)} of {plain_number(total)} steps"
    return f"{plain_number(run.step)} steps"


def state_table(placed: Sequence[Placed]) -> Markup:
    """Return where the training of each run stands."""
    rows: list[list[str]] = [
        ["steps taken", *(progress_of(one.run) for one in placed)],
        ["time, if not interrupted", *(_time(one.run) for one in placed)],
        ["checkpoint shown", *(_checkpoint(one.run) for one in placed)],
        ["best checkpoint", *(_best(one.run) for one in placed)],
        ["parameters", *(_count(one.run) for one in placed)],
    ]
    return table("Where training stands", ["", *(one.name for one in placed)], rows, class_="text")


def charts(placed: Sequence[Placed]) -> Markup:
    """Return a chart of each quantity that was recorded, with all runs in it.

    Runs whose log p(x | z) is of other values, or no density but a probability, have charts of
    their own of what holds it. What was recorded once has no chart, but is told.
    """
    found, once = [], []
    for quantity in _quantities(placed):
        for kind, alike in _alike(placed, quantity).items():
            curves = [curve for one in alike for curve in _curves(one, quantity)]
            shown = [curve for curve in curves if curve.points]
            if any(len(curve.points) > 1 for curve in shown):
                found.append(_chart(quantity, shown, kind))
            elif shown:
                title = _title(quantity) + (f" ({kind})" if kind else "")
                once.append(f"{title}: {_ends(shown, step=True)}")
    if not found and not once:
        return element("p", "No quantity has been recorded yet.", class_="note")
    told = element("p", f"Recorded once: {'; '.join(once)}.", class_="muted") if once else None
    return joined(element("div", *found, class_="charts") if found else None, told)


def legend(placed: Sequence[Placed]) -> Markup:
    """Return which colour and letter is which run."""
    seen: dict[str, Placed] = {}
    for one in placed:
        seen.setdefault(one.label, one)
    items = [
        element("li", element("span", label, class_=f"chip r{one.colour}"), " ", title_of(one.run))
        for label, one in seen.items()
    ]
    kinds = element("li", "thin: training batches; with dots: held-out data", class_="kinds")
    return element("ul", *items, kinds, class_="legend")


def title_of(run: RunContents) -> str:
    """Return the last part of a run's folder; of a study's runs, which are seeds, the last two."""
    parts = Path(run.path).parts
    shown = parts[-2:] if parts and parts[-1].startswith("seed-") else parts[-1:]
    return "/".join(shown) or run.path


def _quantities(placed: Sequence[Placed]) -> list[str]:
    names: dict[str, None] = dict.fromkeys(_ORDER)
    for one in placed:
        for held_out in (True, False):
            names |= dict.fromkeys(one.run.quantities(held_out=held_out))
    return list(names)


def _curves(one: Placed, quantity: str) -> list[Curve]:
    return [
        Curve(one.label, one.name, one.colour, one.run.curve(quantity, held_out=held), held)
        for held in (False, True)
    ]


def _alike(placed: Sequence[Placed], quantity: str) -> dict[str, list[Placed]]:
    """Return runs that share a chart, by what their log p(x) is of if that differs."""
    groups: dict[tuple[str, str], list[Placed]] = {}
    for one in placed:
        config = one.run.config
        kind = observed_kind(str(config.get("preprocessing")), part(config, "likelihood"))
        groups.setdefault(kind, []).append(one)
    if quantity not in _OF_DATA or len(groups) < 2:
        return {"": list(placed)}
    return {
        f"{preprocessing}, {'probabilities' if kind == 'probability' else 'densities'}": alike
        for (preprocessing, kind), alike in groups.items()
    }


def _title(quantity: str) -> str:
    return _TITLES.get(quantity, meaning_of(quantity).title)


def _ends(curves: Sequence[Curve], *, step: bool = False) -> str:
    """Return the last values of curves in words."""
    return ", ".join(
        f"{curve.name}{' held out' if curve.marked else ''} {plain_number(curve.points[-1][1])}"
        + (f" at step {plain_number(curve.points[-1][0])}" if step else "")
        for curve in curves
    )


def _chart(quantity: str, shown: Sequence[Curve], kind: str) -> Markup:
    """Return a chart of curves, of which some have points.

    Args:
        quantity: what is drawn.
        shown: its curves, none of them empty.
        kind: what log p(x) is of where other runs' is of something else; empty otherwise.
    """
    title = _title(quantity)
    unit = ", nats per datum" if quantity in _NATS else ""
    outside, lost = hidden_values(shown)
    size = max(thinned(curve.points)[1] for curve in shown)
    notes = [
        f"log p(x) of {kind}, which do not compare with those of the other runs" if kind else "",
        _ONE_DRAW_OF_Z if quantity in _ONE_DRAW and any(one.marked for one in shown) else "",
        f"each point is the mean of {size} records" if size > 1 else "",
        f"outside: {outside} of {sum(len(thinned(curve.points)[0]) for curve in shown)} points"
        if outside
        else "",
        f"{lost} are not finite" if lost else "",
    ]
    return element(
        "figure",
        element("h3", title, element("small", unit)),
        line_chart(shown, title=title + unit),
        element("figcaption", element("output", f"at the end: {_ends(shown)}"), _remarks(notes)),
    )


def _remarks(notes: Sequence[str]) -> Markup | None:
    said = "; ".join(note for note in notes if note)
    return element("small", f"({said})") if said else None


def _time(run: RunContents) -> str:
    seconds = [value for _, value in run.curve("seconds")]
    if not seconds:
        return "unknown"
    minutes, rest = divmod(round(seconds[-1]), 60)
    hours, minutes = divmod(minutes, 60)
    device = run.records[0].get("device") if run.records else None
    time = f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
    return f"{time} on {device}" if device else time


def _checkpoint(run: RunContents) -> Markup | str:
    if not run.state:
        command = f"dpvae train --resume {shlex.quote(run.path)}"
        return element("span", "none could be read; ", element("code", command))
    average = ", moving average of weights" if run.weights == "average" else ""
    return f"step {plain_number(run.state['step'])}{average}"


def _best(run: RunContents) -> str:
    best = run.state.get("best")
    if best is None:
        return "none yet"
    monitor = str(run.config.get("monitor") or "elbo")
    score = dict(run.curve(monitor, held_out=True)).get(best)
    shown = (
        "" if score is None else f": held-out {meaning_of(monitor).title} {plain_number(score)}"
    )
    draws = ", one draw of z per datum" if shown and monitor in _ONE_DRAW else ""
    return f"step {plain_number(best)}{shown}{draws}"


def _count(run: RunContents) -> str:
    return "unknown" if run.parameters is None else f"{run.parameters:,}"
