"""Clouds of points in a table of panels."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

__all__ = ["CLOUD_COLORS", "Clouds", "clouds_figure"]

CLOUD_COLORS = {
    "data": "#b8b8b8",
    "aggregate posterior": "#b8b8b8",
    "prior samples": "#1f6fb4",
    "low-posterior samples (pockets)": "#d1351b",
    "high-posterior samples (leaks)": "#e69f00",
}
"""The colours of clouds by their titles."""

_AREA = 6.0  # of a mark, whatever the cloud
_TAIL = 0.005  # of a panel's points, at either end of each coordinate, that may lie outside
_MARGIN = 0.06  # of the range, at either end

Limits = tuple[float, float, float, float]
"""From where to where the first coordinate is drawn, and the second."""


@dataclass(frozen=True)
class Clouds:
    """Clouds of points in a plane.

    Attributes:
        points: by title, one of :data:`CLOUD_COLORS`, of shape (count, 2). Later clouds lie over
            earlier ones.
        names: the names of the two coordinates; panels of the same names are of one space.
        note: a text in the panel's lower left corner.
    """

    points: Mapping[str, Tensor]
    names: tuple[str, str]
    note: str = ""


def clouds_figure(rows: Mapping[str, Mapping[str, Clouds]]) -> Figure:
    """Return a figure with a row and a column of panels for each title, and clouds in each.

    The panels of a row have the same limits, or, where a row has panels of several spaces, all
    panels of a space: the smallest between which 99 % of each panel's points lie, in each
    coordinate, and a margin. A panel says how many of its points are outside.

    Args:
        rows: by title of the row, by title of the column, as many in each row, the first row's
            being written.

    Example:
        >>> import torch
        >>> clouds = Clouds({"data": torch.rand(9, 2)}, ("$x_1$", "$x_2$"))
        >>> figure = clouds_figure({"a": {"b": clouds}})
        >>> figure.axes[0].get_title(), figure.axes[0].get_xlabel()
        ('b', '$x_1$')
    """
    columns = list(next(iter(rows.values())))
    panels = [list(row.values()) for row in rows.values()]
    limits = _shared_limits(panels)
    heights = [_height(row[0]) for row in limits]
    size = 2.9 * len(columns) + 0.4, 2.55 * sum(heights) + 0.45 * len(rows) + 0.5
    figure = Figure(figsize=size, layout="constrained")
    table = figure.subplots(len(rows), len(columns), squeeze=False, height_ratios=heights)
    for i, row in enumerate(panels):
        for j, clouds in enumerate(row):
            _draw(table[i, j], clouds, limits[i][j])
            # What a neighbour with the same limits says is not said again.
            if j == 0 or limits[i][j - 1] != limits[i][j]:
                table[i, j].set_ylabel(clouds.names[1], fontsize=10)
            else:
                table[i, j].tick_params(labelleft=False)
            if i + 1 == len(panels) or limits[i + 1][j] != limits[i][j]:
                table[i, j].set_xlabel(clouds.names[0], fontsize=10)
            else:
                table[i, j].tick_params(labelbottom=False)
    for axes, title in zip(table[:, 0], rows, strict=True):
        axes.annotate(
            title,
            (0, 0.5),
            xytext=(-6, 0),
            xycoords=axes.yaxis.label,
            textcoords="offset points",
            ha="right",
            va="center",
            rotation=90,
            multialignment="center",
            fontsize=11,
        )
    for axes, title in zip(table[0], columns, strict=True):
        axes.set_title(title, fontsize=11)
    _legend(figure, {label for row in panels for clouds in row for label in clouds.points})
    return figure


def _shared_limits(panels: Sequence[Sequence[Clouds]]) -> list[list[Limits]]:
    """Return the limits of each panel: of its row if each row is of one space, or of its space.

    Rows are as flat as what they show; but where spaces stand side by side, all are square.
    """
    mixed = any(len({clouds.names for clouds in row}) > 1 for row in panels)
    keys = [[clouds.names if mixed else i for clouds in row] for i, row in enumerate(panels)]
    shared: dict[tuple[str, str] | int, list[Tensor]] = {}
    for key, clouds in zip(chain(*keys), chain(*panels), strict=True):
        shared.setdefault(key, []).append(_reach(clouds.points.values()))
    limits = {key: _limits(torch.stack(ends), square=mixed) for key, ends in shared.items()}
    return [[limits[key] for key in row] for row in keys]


def _reach(clouds: Iterable[Tensor]) -> Tensor:
    """Return where the tails of clouds begin, of shape (ends, coordinates)."""
    points = torch.cat([cloud.cpu().float() for cloud in clouds])
    return points.quantile(torch.tensor([_TAIL, 1 - _TAIL]), dim=0)


def _limits(ends: Tensor, *, square: bool) -> Limits:
    low, high = ends[:, 0].amin(0), ends[:, 1].amax(0)
    middle, reach = (low + high) / 2, (0.5 + _MARGIN) * (high - low)
    if square:
        reach = reach.max().expand(2)
    (left, bottom), (right, top) = (middle - reach).tolist(), (middle + reach).tolist()
    return left, right, bottom, top


def _height(limits: Limits) -> float:
    """Return how high a panel is whose width is 1."""
    left, right, bottom, top = limits
    return (top - bottom) / (right - left)


def _draw(axes: Axes, clouds: Clouds, limits: Limits) -> None:
    left, right, bottom, top = limits
    outside = 0
    for label, points in clouds.points.items():
        x, y = points.cpu().T.numpy()
        axes.scatter(x, y, s=_AREA, c=CLOUD_COLORS[label], alpha=0.6, lw=0, label=label)
        outside += int(((x < left) | (x > right) | (y < bottom) | (y > top)).sum())
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.set_aspect("equal", adjustable="box")
    axes.locator_params(nbins=6)
    axes.tick_params(labelsize=9)
    box = {"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.8}
    place: dict[str, Any] = {"fontsize": 8, "bbox": box, "transform": axes.transAxes}
    if outside:
        axes.text(0.97, 0.95, f"{outside} outside", ha="right", va="top", **place)
    if clouds.note:
        axes.text(0.03, 0.04, clouds.note, ha="left", va="bottom", **place)


def _legend(figure: Figure, drawn: set[str]) -> None:
    """Draw a legend below, with an entry for each colour, in as many rows as fit."""
    names: dict[str, list[str]] = {}
    for label, color in CLOUD_COLORS.items():
        if label in drawn:
            names.setdefault(color, []).append(label)
    figure.legend(
        [Line2D([], [], ls="", marker="o", ms=6, color=color) for color in names],
        [" / ".join(labels) for labels in names.values()],
        loc="outside lower center",
        ncols=max(1, min(len(names), int(figure.get_figwidth() / 2.9))),
        frameon=False,
        fontsize=11,
    )
