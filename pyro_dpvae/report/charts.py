"""Curves and intervals as inline SVG that takes its colours from the page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from pyro_dpvae.report.markup import Markup, element, joined
from pyro_dpvae.report.numbers import finite, plain_number, ticks

__all__ = [
    "Curve",
    "Frame",
    "hidden_values",
    "interval_drawing",
    "limits",
    "line_chart",
    "spread",
    "thinned",
]

_WIDTH, _HEIGHT = 400, 236
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 26, 12, 40
_MOST = 250  # points of a curve
_FEW = 10  # values below which all are shown, however far out
_TAIL = 0.05
_LABEL = 13  # between letters at the ends of curves
_ROW, _STRIP = 16, 170  # of an interval drawing


Point = tuple[int | float, int | float]


@final
@dataclass(frozen=True)
class Curve:
    """Values over steps, of one run.

    Attributes:
        label: of the run, a letter; runs that differ in their seeds share one.
        name: of the run, for the read-out.
        colour: its number among the page's colours.
        points: step and value, in order; values may be NaN or infinite.
        marked: whether each point has a mark, as measured on held-out data.
    """

    label: str
    name: str
    colour: int
    points: Sequence[Point]
    marked: bool = False


@final
@dataclass(frozen=True)
class Frame:
    """The rectangle of a chart: linear maps of steps and values to its coordinates.

    Example:
        >>> frame = Frame(x=(0.0, 100.0), y=(0.0, 1.0), left=50, right=374, top=12, bottom=196)
        >>> frame.at(0.0, 0.0), frame.at(100.0, 1.0), frame.at(50.0, 0.5)
        ((50.0, 196.0), (374.0, 12.0), (212.0, 104.0))
    """

    x: Point
    y: Point
    left: int | float
    right: int | float
    top: int | float
    bottom: int | float

    def at(self, x: int | float, y: int | float) -> Point:
        """Return the coordinates of a point."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return (
            self.left + across * (self.right - self.left),
            self.bottom + up * (self.top - self.bottom),
        )


def thinned(points: Sequence[Point], most: int = _MOST) -> tuple[list[Point], int]:
    """Return means of as many consecutive points as leaves no more than so many, and that number.

    Each mean lies at the last step of its points, so that a curve ends where the run does.

    Example:
        >>> thinned([(1, 2.0), (2, 4.0), (3, 5.0), (4, 7.0), (5, 1.0)], most=3)
        ([(2, 3.0), (4, 6.0), (5, 1.0)], 2)
    """
    size = max(1, math.ceil(len(points) / most))
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(part[-1][0], math.fsum(y for _, y in part) / len(part)) for part in parts], size


def limits(values: Sequence[int | float]) -> Point:
    """Return between which values a chart is drawn: all of them, or but for far outliers.

    Of ten values or more, those further from the middle 90 % than its width are left out, as the
    first losses of a run are.

    Example:
        >>> limits([1.0, 3.0]), limits([900.0] + [float(n % 5) for n in range(40)])
        ((1.0, 3.0), (0.0, 8.0))
    """
    known = sorted(finite(values))
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


def line_chart(curves: Sequence[Curve], *, title: str) -> Markup:
    """Return a chart of curves over steps.

    Each curve ends with its label, so that colours are not needed to tell them apart, and carries
    its points as data for the read-out of the page's script.

    Args:
        curves: at least one, with at least one point in all.
        title: of the chart, for those who cannot see it.
    """
    drawn = [(curve, *thinned(curve.points)) for curve in curves if curve.points]
    values = [y for _, points, _ in drawn for _, y in points]
    steps = [x for _, points, _ in drawn for x, _ in points]
    low, high = limits(values)
    room = 0.04 * (high - low)
    last = max(steps)
    frame = Frame(
        (0.0, float(last) or 1.0),
        (low - room, high + room),
        _LEFT,
        _WIDTH - _RIGHT,
        _TOP,
        _HEIGHT - _BOTTOM,
    )
    paths = [_path(curve, points, frame) for curve, points, _ in drawn]
    return element(
        "svg",
        element("title", f"{title}. {_summary(curves)}"),
        _axes(frame),
        # Nested, as it clips what lies outside.
        element(
            "svg",
            *paths,
            x=_LEFT,
            y=_TOP - 4,
            width=_WIDTH - _LEFT - _RIGHT + 4,
            height=_HEIGHT - _TOP - _BOTTOM + 8,
            viewBox=f"{_LEFT} {_TOP - 4} {_WIDTH - _LEFT - _RIGHT + 4} "
            f"{_HEIGHT - _TOP - _BOTTOM + 8}",
        ),
        _ends(drawn, frame),
        element("line", class_="cursor", x1=0, x2=0, y1=_TOP, y2=_HEIGHT - _BOTTOM),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        class_="chart",
        data_last=plain_number(last),
    )


def hidden_values(curves: Sequence[Curve]) -> tuple[int, int]:
    """Return how many drawn points lie outside the limits of their chart, and how many are NaN."""
    values = [y for curve in curves if curve.points for _, y in thinned(curve.points)[0]]
    low, high = limits(values)
    known = finite(values)
    return sum(not low <= y <= high for y in known), len(values) - len(known)


def spread(
    places: Sequence[int | float], *, gap: int | float, most: int | float
) -> list[int | float]:
    """Return increasing places moved at least ``gap`` apart, and none beyond ``most``.

    Example:
        >>> spread([10, 12, 90], gap=5, most=80)
        [10, 15, 80]
    """
    apart: list[int | float] = []
    for place in places:
        apart.append(max(place, apart[-1] + gap) if apart else place)
    bound = most
    for at in reversed(range(len(apart))):
        apart[at] = min(apart[at], bound)
        bound = apart[at] - gap
    return apart


def interval_drawing(
    intervals: Sequence[tuple[int, int | float, int | float] | None], *, within: Point | None
) -> Markup:
    """Return intervals below each other on one scale, each a line with a dot in its middle.

    Args:
        intervals: of each run, the number of its colour, the value and half the interval (NaN
            where it is not known); None leaves its row empty.
        within: the scale; None takes the one that holds them all.
    """
    known = [one for one in intervals if one is not None]
    if within is None:
        halves = [half if math.isfinite(half) else 0.0 for _, _, half in known]
        within = limits(
            [v - h for (_, v, _), h in zip(known, halves, strict=True)]
            + [v + h for (_, v, _), h in zip(known, halves, strict=True)]
        )
    height = _ROW * len(intervals)
    frame = Frame(within, (0.0, 1.0), 8, _STRIP - 8, 0, height)
    rows = []
    if within[0] <= 0 <= within[1]:
        zero = _short(frame.at(0.0, 0.0)[0])
        rows.append(element("line", class_="zero", x1=zero, x2=zero, y1=0, y2=height))
    for row, one in enumerate(intervals):
        if one is None:
            continue
        colour, value, half = one
        y, middle = _ROW * row + _ROW // 2, _short(frame.at(value, 0.0)[0])
        if math.isfinite(half) and half > 0:
            a, b = (_short(frame.at(value + sign * half, 0.0)[0]) for sign in (-1, 1))
            rows.append(
                element("path", d=f"M{a} {y}H{b}M{a} {y - 3}v6M{b} {y - 3}v6", class_=f"r{colour}")
            )
        rows.append(element("circle", cx=middle, cy=y, r=3.5, class_=f"dot r{colour}"))
    return element(
        "svg",
        *rows,
        viewBox=f"0 0 {_STRIP} {height}",
        width=_STRIP,
        height=height,
        class_="interval",
        aria_hidden="true",
    )


def _axes(frame: Frame) -> Markup:
    parts = []
    for value in ticks(*frame.y):
        y = _short(frame.at(0.0, value)[1])
        parts.append(element("line", class_="grid", x1=frame.left, x2=frame.right, y1=y, y2=y))
        label = plain_number(value)
        parts.append(element("text", label, x=frame.left - 6, y=y, dy=".32em", class_="value"))
    for step in ticks(*frame.x, most=4):
        x = _short(frame.at(step, 0.0)[0])
        parts.append(
            element("line", class_="tick", x1=x, x2=x, y1=frame.bottom, y2=frame.bottom + 4)
        )
        parts.append(element("text", plain_number(step), x=x, y=frame.bottom + 17, class_="step"))
    parts.append(
        element(
            "line", class_="axis", x1=frame.left, x2=frame.right, y1=frame.bottom, y2=frame.bottom
        )
    )
    parts.append(element("text", "step", x=frame.right, y=frame.bottom + 34, class_="name"))
    return joined(*parts)


def _path(curve: Curve, points: Sequence[Point], frame: Frame) -> Markup:
    """Return a curve, interrupted where values are not finite, with its points as data."""
    moves, marks, pen = [], [], "M"
    for x, y in points:
        if not math.isfinite(y):
            pen = "M"
            continue
        # Far outside, coordinates are bounded: renderers take single precision.
        left, top = frame.at(x, min(max(y, _below(frame)), _above(frame)))
        moves.append(f"{pen}{_short(left)} {_short(top)}")
        pen = "L"
        if curve.marked:
            marks.append(element("circle", cx=_short(left), cy=_short(top), r=3))
    kind = "held" if curve.marked else "train"
    return element(
        "g",
        element("path", d="".join(moves)),
        *marks,
        class_=f"{kind} r{curve.colour}",
        data_name=curve.name,
        data_kind="held out" if curve.marked else "training",
        data_x=",".join(_exact(x) for x, _ in points),
        data_y=",".join(plain_number(y).replace(",", "") for _, y in points),
        data_left=",".join(_short(frame.at(x, 0.0)[0]) for x, _ in points),
    )


def _ends(drawn: Sequence[tuple[Curve, Sequence[Point], int]], frame: Frame) -> Markup:
    """Return the labels at the ends of curves, moved apart; one for each label."""
    ends: dict[str, tuple[float, float, int]] = {}
    for curve, points, _ in drawn:
        known = [(x, y) for x, y in points if math.isfinite(y)]
        if known:
            x, y = known[-1]
            left, top = frame.at(x, min(max(y, frame.y[0]), frame.y[1]))
            ends[curve.label] = left, top, curve.colour
    ordered = sorted(ends.items(), key=lambda item: item[1][1])
    tops = spread([top for _, (_, top, _) in ordered], gap=_LABEL, most=frame.bottom - _LABEL / 2)
    return joined(
        *(
            element(
                "text",
                label,
                x=_short(left + 7),
                y=_short(top),
                dy=".32em",
                class_=f"end r{colour}",
            )
            for (label, (left, _, colour)), top in zip(ordered, tops, strict=True)
        )
    )


def _summary(curves: Sequence[Curve]) -> str:
    return "; ".join(
        f"{curve.name}{', held out,' if curve.marked else ''} "
        f"{plain_number(curve.points[-1][1])} at step {plain_number(curve.points[-1][0])}"
        for curve in curves
        if curve.points
    )


def _below(frame: Frame) -> float:
    return frame.y[0] - (frame.y[1] - frame.y[0])


def _above(frame: Frame) -> float:
    return frame.y[1] + (frame.y[1] - frame.y[0])


def _short(coordinate: int | float) -> str:
    return f"{coordinate:.1f}".removesuffix(".0")


def _exact(step: int | float) -> str:
    return f"{step:g}" if step < 1e6 else str(int(step))
