"""Where the training of runs stands, and the curves of what was recorded."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from pyro_dpvae.evaluation.compare import observed_kind
from pyro_dpvae.evaluation.meanings import meaning_of
from pyro_dpvae.evaluation.numbers import plain_number
from pyro_dpvae.report.charts import PLOT_BOX, Curve, line_figure, outside, svg, thinned
from pyro_dpvae.report.contents import RunContents

__all__ = ["Placed", "charts", "part", "progress_of", "state_rows", "title_of"]

_TITLES = {"learning_rate": "learning rate", "gradient_norm": "norm of gradients"}
_TITLES |= {"left_out": "steps left out", "elbo": "ELBO"}
_ORDER = ("elbo", "loss", "distortion", "rate")  # quantities in nats per datum, shown first
_OF_DATA = ("elbo", "loss", "distortion")  # quantities that hold log p(x | z)
_ONE_SAMPLE = ("elbo", "distortion")  # quantities of one sample of z per datum


@final
@dataclass(frozen=True)
class Placed:
    """A run and its place on a page.

    Attributes:
        run: its contents.
        label: a letter; runs that differ in their seeds share one.
        name: the label, with the seed if runs share the letter.
        colour: its number among the page's colours.
    """

    run: RunContents
    label: str
    name: str
    colour: int

    @property
    def title(self) -> str:
        """The run's title."""
        return title_of(self.run)


def title_of(run: RunContents) -> str:
    """Return the last part of a run's folder; of a folder that names a seed, the last two."""
    parts = Path(run.path).parts
    shown = parts[-2:] if parts and parts[-1].startswith("seed-") else parts[-1:]
    return "/".join(shown) or run.path


def part(run: RunContents, kind: str) -> str:
    """Return the name of a part of a run's configuration; empty if it has none."""
    value = run.config.get(kind)
    return str((value.get("name") if isinstance(value, dict) else value) or "")


def progress_of(run: RunContents) -> str:
    """Return how many of its steps a run has taken."""
    total = run.config.get("steps")
    of_total = f" of {plain_number(total)}" if isinstance(total, int) else ""
    return f"{plain_number(run.step)}{of_total} steps"


def state_rows(placed: Sequence[Placed]) -> list[list[str]]:
    """Return where the training of each run stands, as rows of a table."""
    rows = {
        "steps taken": progress_of,
        "time, if not interrupted": _time,
        "checkpoint shown": _checkpoint,
        "best checkpoint": _best,
        "parameters": lambda run: "unknown" if run.parameters is None else f"{run.parameters:,}",
    }
    header = ["", *(one.name for one in placed)]
    return [header, *([name, *(row(one.run) for one in placed)] for name, row in rows.items())]


def charts(placed: Sequence[Placed]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a chart of each recorded quantity, with all runs in it, and what was recorded once.

    Runs have separate charts of log p(x | z) if they differ in the preprocessing, or if one has
    probabilities and the other densities. A quantity that was recorded once gets a text instead.
    """
    found, once = [], []
    for quantity in _quantities(placed):
        title = _TITLES.get(quantity, meaning_of(quantity).title)
        for kind, alike in _comparable(placed, quantity).items():
            curves = [
                Curve(one.label, one.name, one.colour, points, held_out)
                for one in alike
                for held_out in (False, True)
                if (points := one.run.curve(quantity, held_out=held_out))
            ]
            if any(len(curve.points) > 1 for curve in curves):
                found.append(_chart(quantity, title, curves, kind))
            elif curves:
                once.append(f"{title}{f' ({kind})' if kind else ''}: {_ends(curves, step=True)}")
    return found, once


def _quantities(placed: Sequence[Placed]) -> list[str]:
    names = dict.fromkeys(_ORDER)
    for one in placed:
        for held_out in (True, False):
            names |= dict.fromkeys(one.run.quantities(held_out=held_out))
    return list(names)


def _comparable(placed: Sequence[Placed], quantity: str) -> dict[str, list[Placed]]:
    """Return the runs that share a chart, by what their log p(x) is of if that differs."""
    groups: dict[tuple[str, str], list[Placed]] = {}
    for one in placed:
        likelihood = one.run.config.get("likelihood")
        options = likelihood if isinstance(likelihood, dict) else {"name": likelihood}
        kind = observed_kind(str(one.run.config.get("preprocessing")), options)
        groups.setdefault(kind, []).append(one)
    if quantity not in _OF_DATA or len(groups) < 2:
        return {"": list(placed)}
    plural = {"probability": "probabilities", "density": "densities"}
    return {f"{name}, {plural.get(kind, kind)}": alike for (name, kind), alike in groups.items()}


def _chart(quantity: str, title: str, curves: Sequence[Curve], kind: str) -> dict[str, Any]:
    """Return a chart as the page's template takes it; ``kind`` says what log p(x) is of."""
    unit = "nats per datum" if quantity in _ORDER else ""
    drawn, beyond, lost = outside(curves)
    size = max(thinned(curve.points)[1] for curve in curves)
    notes = {
        f"log p(x) of {kind}, not comparable with the other runs": bool(kind),
        "held out: one sample of z per datum": quantity in _ONE_SAMPLE
        and any(curve.held_out for curve in curves),
        f"each point is the mean of {size} records": size > 1,
        f"outside: {beyond} of {drawn} points": beyond > 0,
        f"{lost} points are not finite": lost > 0,
    }
    points = [thinned(curve.points)[0] for curve in curves]
    data = {
        "box": PLOT_BOX,
        "last": max(one[-1][0] for one in points),
        "curves": [
            [_name(curve), [x for x, _ in one], [plain_number(y) for _, y in one]]
            for curve, one in zip(curves, points, strict=True)
        ],
    }
    ends = _ends(curves)
    picture = svg(line_figure(curves), title=f"{title} {unit}: {ends}")
    said = [note for note, holds in notes.items() if holds]
    return {"title": title, "unit": unit, "svg": picture, "ends": ends, "notes": said} | {
        "data": json.dumps(data)
    }


def _name(curve: Curve) -> str:
    return f"{curve.name} held out" if curve.held_out else curve.name


def _ends(curves: Sequence[Curve], *, step: bool = False) -> str:
    """Return the last values of curves as text."""
    return ", ".join(
        f"{_name(curve)} {plain_number(curve.points[-1][1])}"
        + (f" at step {plain_number(curve.points[-1][0])}" if step else "")
        for curve in curves
    )


def _time(run: RunContents) -> str:
    seconds = [value for _, value in run.curve("seconds")]
    if not seconds:
        return "unknown"
    minutes, rest = divmod(round(seconds[-1]), 60)
    hours, minutes = divmod(minutes, 60)
    device = run.records[0].get("device") if run.records else None
    time = f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
    return f"{time} on {device}" if device else time


def _checkpoint(run: RunContents) -> str:
    if not run.state:
        return f"none could be read; dpvae train --resume {shlex.quote(run.path)}"
    average = ", moving average of weights" if run.weights == "average" else ""
    return f"step {plain_number(run.state['step'])}{average}"


def _best(run: RunContents) -> str:
    best = run.state.get("best")
    if best is None:
        return "none yet"
    monitor = str(run.config.get("monitor") or "elbo")
    score = dict(run.curve(monitor, held_out=True)).get(best)
    if score is None:
        return f"step {plain_number(best)}"
    samples = ", one sample of z per datum" if monitor in _ONE_SAMPLE else ""
    title = meaning_of(monitor).title
    return f"step {plain_number(best)}: held-out {title} {plain_number(score)}{samples}"
