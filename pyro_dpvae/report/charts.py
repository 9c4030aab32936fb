"""Curves and intervals as matplotlib figures, and figures as SVG in the colours of the page."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import final

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pyro_dpvae.evaluation.numbers import plain_number, share_interval

__all__ = ["COLOURS", "PLOT_BOX", "Curve", "interval_figure", "limits", "line_figure"]
__all__ += ["outside", "spread", "svg", "thinned"]

COLOURS = 8
"""The number of colours of runs; further runs take them again from the first."""

PLOT_BOX = (0.15, 0.92)
"""Left and right end of the axes of a line chart, as shares of the figure's width."""

# Stand-ins that `svg` replaces by variables of the page, so that charts follow its colour scheme.
_TEXT, _GRID = "#010101", "#010102"
_RUNS = [f"#0102{number:02x}" for number in range(COLOURS)]
_VARIABLES = {_TEXT: "var(--muted)", _GRID: "var(--line)"}
_VARIABLES |= {colour: f"var(--r{number})" for number, colour in enumerate(_RUNS)}

_MOST_POINTS = 250  # of a curve
_FEW = 10  # values below which none is left out as an outlier
_TAIL = 0.05


@final
@dataclass(frozen=True)
class Curve:
    """Values over steps, of one run.

    Attributes:
        label: the letter of the run; runs that differ in their seeds share one.
        name: the name of the run in texts.
        colour: its number among the page's colours.
        points: step and value, in order; values may be NaN or infinite.
        held_out: whether the values are of held-out data, whose points get marks.
    """

    label: str
    name: str
    colour: int
    points: Sequence[tuple[float, float]]
    held_out: bool = False


def thinned(
    points: Sequence[tuple[float, float]], most: int = _MOST_POINTS
) -> tuple[list[tuple[float, float]], int]:
    """Return means over groups of consecutive points, at most so many, and the size of a group.

    Each mean lies at the last step of its group, so that a curve ends where the run does.

    Example:
        >>> thinned([(1.0, 2.0), (2.0, 4.0), (3.0, 5.0)], most=2)
        ([(2.0, 3.0), (3.0, 5.0)], 2)
    """
    size = max(1, math.ceil(len(points) / most))
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], math.fsum(y for _, y in group) / len(group)) for group in groups], size


def limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the limits of a chart: the range of the finite values, without far outliers.

    Of ten values or more, the chart leaves out those that are further from the middle 90 % than
    the width of that range, such as the first losses of a run.

    Example:
        >>> limits([1.0, 3.0]), limits([900.0] + [float(n % 5) for n in range(40)])
        ((1.0, 3.0), (0.0, 8.0))
    """
    known = sorted(filter(math.isfinite, values))
    if not known:
        return 0.0, 1.0
    low, high = known[0], known[-1]
    if len(known) >= _FEW:
        tail = math.ceil(_TAIL * len(known))
        inner_low, inner_high = known[tail], known[-1 - tail]
        width = inner_high - inner_low
        low, high = max(low, inner_low - width), min(high, inner_high + width)
    if low == high:
        room = abs(low) / 10 or 1.0
        return low - room, high + room
    return low, high


def outside(curves: Sequence[Curve]) -> tuple[int, int, int]:
    """Return the numbers of drawn points, of those beyond the limits, and of those not finite."""
    values = [y for curve in curves for _, y in thinned(curve.points)[0]]
    low, high = limits(values)
    known = list(filter(math.isfinite, values))
    return len(values), sum(not low <= y <= high for y in known), len(values) - len(known)


def line_figure(curves: Sequence[Curve]) -> Figure:
    """Return a chart of curves over steps; each curve ends with its letter.

    Args:
        curves: at least one, none without points.
    """
    figure = Figure(figsize=(4.2, 2.5))
    figure.subplots_adjust(left=PLOT_BOX[0], right=PLOT_BOX[1], top=0.96, bottom=0.19)
    axes = figure.subplots()
    drawn = [(curve, thinned(curve.points)[0]) for curve in curves]
    low, high = limits([y for _, points in drawn for _, y in points])
    room, last = 0.04 * (high - low), max(points[-1][0] for _, points in drawn)
    axes.set(xlim=(0, last or 1), ylim=(low - room, high + room))
    ends: dict[str, tuple[float, int]] = {}
    for curve, points in drawn:
        style = {"marker": "o", "ms": 4, "lw": 2} if curve.held_out else {"lw": 1.2, "alpha": 0.75}
        axes.plot(*zip(*points, strict=True), color=_RUNS[curve.colour], **style)
        if known := [y for _, y in points if math.isfinite(y)]:
            height = (known[-1] - axes.get_ylim()[0]) / (high - low + 2 * room)
            ends[curve.label] = min(max(height, 0.0), 1.0), curve.colour
    ordered = sorted(ends.items(), key=lambda item: item[1][0])
    heights = spread([height for _, (height, _) in ordered], gap=0.08, most=0.98)
    for (label, (_, colour)), height in zip(ordered, heights, strict=True):
        text = axes.text(1.02, height, label, color=_RUNS[colour], weight="bold", size=9)
        text.set(transform=axes.transAxes, va="center")
    for axis, most in ((axes.xaxis, 5), (axes.yaxis, 6)):
        axis.set_major_locator(MaxNLocator(most))
        axis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))
    axes.grid(axis="y", color=_GRID, lw=0.8)
    axes.tick_params(colors=_TEXT, labelsize=8, left=False)
    axes.set_xlabel("step", color=_TEXT, size=8)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.spines["bottom"].set_color(_TEXT)
    axes.set_axisbelow(True)
    return figure


def spread(places: Sequence[float], *, gap: float, most: float) -> list[float]:
    """Return increasing places, moved at least ``gap`` apart and not beyond ``most``.

    Example:
        >>> spread([10.0, 12.0, 90.0], gap=5.0, most=80.0)
        [10.0, 15.0, 80.0]
    """
    apart: list[float] = []
    for place in places:
        apart.append(max(place, apart[-1] + gap) if apart else place)
    bound = most
    for at in reversed(range(len(apart))):
        apart[at] = min(apart[at], bound)
        bound = apart[at] - gap
    return apart


def interval_figure(
    intervals: Sequence[tuple[float, float] | None], *, share: bool = False
) -> Figure:
    """Return intervals below each other on one scale: a line each, with a dot in its middle.

    Args:
        intervals: the value and half the interval of each run, NaN if the half is unknown; a run
            that is None gets an empty row.
        share: whether values lie between 0 and 1, as then do intervals and the scale of a single
            one.
    """
    figure = Figure(figsize=(1.8, 0.2 * len(intervals)))
    axes = figure.add_axes((0.04, 0.0, 0.92, 1.0))
    axes.set_axis_off()
    known = {row: one for row, one in enumerate(intervals) if one is not None}
    ends = []
    for row, (value, half) in known.items():
        low = high = value
        if math.isfinite(half):
            low, high = share_interval(value, half) if share else (value - half, value + half)
        ends += [low, high]
        error, color = [[value - low], [high - value]], _RUNS[row % COLOURS]
        axes.errorbar(value, row, xerr=error, color=color, fmt="o", ms=4, capsize=2 * (high > low))
    low, high = limits(ends)
    if len(known) == 1:  # against zero, as there is nothing else
        low, high = (0.0, 1.0) if share else limits([0.0, *ends])
    if low <= 0 <= high:
        axes.axvline(0, color=_TEXT, lw=0.8, ls=":")
    axes.set(xlim=(low, high), ylim=(len(intervals) - 0.5, -0.5))
    for artist in axes.get_children():
        artist.set_clip_on(False)
    return figure


def svg(figure: Figure, *, title: str = "") -> Markup:
    """Return a figure as SVG for the page: text as text, colours from the page, no dates.

    Args:
        figure: one of this module.
        title: for readers who cannot see it; without one it is decoration.
    """
    file = StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "dpvae report"}):
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = file.getvalue()
    text = re.sub(r"<!--.*?-->|<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(?<=<g) id="[^"]*"|font-family: [^;]*; ', "", text).replace("\n", "")
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    role = Markup('role="img" aria-label="{}"').format(title) if title else 'aria-hidden="true"'
    return Markup(text.replace("<svg ", f"<svg {role} ", 1))
