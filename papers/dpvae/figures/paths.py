"""Paths through latent spaces, and what lies along them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from pyro_dpvae.plots.clouds import CLOUD_COLORS
from pyro_dpvae.plots.traversal import draw_rows

__all__ = ["PathSpace", "paths_figure"]

_PATHS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7a4fa3")
_CLOUD = "aggregate posterior"
_MARGIN = 0.2  # of the paths' reach, at either end of a panel
_ASIDE, _APART = 0.045, 0.07  # of a panel: of a number from its start, of two numbers


Place = tuple[float, float]


@dataclass(frozen=True)
class PathSpace:
    """Two coordinates of a latent space with paths through it.

    Attributes:
        cloud: points of the aggregate posterior, of shape (count, 2).
        paths: each of shape (points, 2).
        names: of the two coordinates.
    """

    cloud: Tensor
    paths: Sequence[Tensor]
    names: tuple[str, str]


def paths_figure(
    spaces: Mapping[str, PathSpace], rows: Mapping[str, Sequence[Tensor]], *, title: str
) -> Figure:
    """Return a figure with a panel for each space and, below, decoded images along the paths.

    A path has one colour and one number throughout, which stands by its start. Panels of spaces
    show where the paths are; of the cloud, what lies there.

    Args:
        spaces: by title.
        rows: by title, for each path its images (points, channels, height, width) in [0, 1]; at
            most five paths.
        title: of the figure.
    """
    paths = len(next(iter(rows.values())))
    labels = [str(number + 1) for number in range(paths)]
    figure = Figure(layout="constrained")
    count, _, height, width = next(iter(rows.values()))[0].shape
    across = 12.0
    below = across / len(rows) * paths * height / (count * width) + 0.4
    above = across / len(spaces)
    figure.set_size_inches(across, above + below + 0.7)
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(above + 0.3, below))[:, 0]
    for panel, (name, space) in zip(
        upper.subplots(1, len(spaces), squeeze=False)[0], spaces.items(), strict=True
    ):
        _draw_space(panel, space, labels)
        panel.set_title(name, fontsize=12)
    upper.legend(
        [Line2D([], [], ls="", marker="o", ms=6, color=CLOUD_COLORS[_CLOUD])],
        [_CLOUD],
        loc="outside lower center",
        frameon=False,
        fontsize=11,
    )
    for panel, (name, decoded) in zip(
        lower.subplots(1, len(rows), squeeze=False)[0], rows.items(), strict=True
    ):
        draw_rows(panel, decoded, labels)
        panel.set_title(name, fontsize=12)
        for label, color in zip(panel.get_yticklabels(), _PATHS, strict=False):
            label.set(color=color, fontweight="bold", fontsize=11)
    figure.suptitle(title, fontsize=13)
    return figure


def _draw_space(panel: Axes, space: PathSpace, labels: Sequence[str]) -> None:
    x, y = space.cloud.cpu().T.numpy()
    panel.scatter(x, y, s=5, c=CLOUD_COLORS[_CLOUD], lw=0, alpha=0.6)
    points = torch.cat(list(space.paths)).cpu()
    low, high = points.amin(0), points.amax(0)
    side = max(float((high - low).max()) * (1 + 2 * _MARGIN), 1e-6)
    middle = (low + high) / 2
    placed: list[Place] = []
    for path, color, label in zip(space.paths, _PATHS, labels, strict=False):
        x, y = path.cpu().T.numpy()
        panel.plot(x, y, color=color, lw=1.6, marker="o", ms=3)
        placed.append(_beside_start(path.cpu(), side, placed))
        panel.annotate(
            label,
            (x[0], y[0]),
            xytext=placed[-1],
            textcoords="data",
            ha="center",
            va="center",
            color="white",
            fontsize=7,
            fontweight="bold",
            bbox={"boxstyle": "circle,pad=0.15", "fc": color, "ec": "white"},
        )
    left, bottom = (middle - side / 2).tolist()
    panel.set(xlim=(left, left + side), ylim=(bottom, bottom + side))
    panel.set(xlabel=space.names[0], ylabel=space.names[1])
    panel.set_aspect("equal", adjustable="box")
    panel.tick_params(labelsize=9)


def _beside_start(path: Tensor, side: float, placed: Sequence[Place]) -> Place:
    """Return where a path's number stands: behind its start, or else where no other stands."""
    (x, y), (dx, dy) = path[0].tolist(), (path[0] - path[1]).tolist()
    behind = math.atan2(dy, dx)
    # Eighths of a half turn to either side, the nearest first.
    angles = [behind + sign * turn * math.pi / 8 for turn in range(9) for sign in (1, -1)]
    places = [
        (x + _ASIDE * side * math.cos(angle), y + _ASIDE * side * math.sin(angle))
        for angle in angles
    ]

    def room(place: Place) -> float:
        return min((math.dist(place, other) for other in placed), default=math.inf)

    free = (place for place in places if room(place) > _APART * side)
    return next(free, max(places, key=room))
