"""Latent space: where the data are, by label, and where prior, pockets and leaks are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pyro_dpvae.plots.clouds import CLOUD_COLORS

__all__ = ["LABEL_COLORS", "LatentSpace", "latent_figure"]

LABEL_COLORS = (
    *("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#9d755d"),
    *("#72b7b2", "#d6a419", "#ff6fae", "#8a8f98", "#7f4fc9"),
)
"""The colours of classes; data with more classes than colours are drawn in grey."""

_POINT = 0.01  # share of a panel below which a traversal is a point


@dataclass(frozen=True)
class LatentSpace:
    """Two coordinates of a latent space.

    Attributes:
        means: the posterior means of data, of shape (data, 2).
        clouds: by title, one of :data:`CLOUD_COLORS`, samples of shape (count, 2).
        names: the names of the two coordinates.
        lines: traversals, each of shape (points, 2); their numbers count from 1.
    """

    means: Tensor
    clouds: Mapping[str, Tensor]
    names: tuple[str, str]
    lines: Sequence[Tensor] = ()


def latent_figure(
    spaces: Mapping[str, LatentSpace],
    labels: Tensor | None = None,
    *,
    label_names: Sequence[str] | None = None,
) -> Figure:
    """Return a figure with a row for each space: the data on the left, the prior on the right.

    The panels of a row share their limits. Each traversal has its number at its start; a traversal
    shorter than 1 % of the panel is left out.

    Args:
        spaces: by title of the row.
        labels: the class of each datum, of shape (data,); without it, or with more classes than
            :data:`LABEL_COLORS`, the data are grey.
        label_names: the names of the classes, by class.
    """
    figure = Figure(figsize=(10.4, 4.7 * len(spaces) + 0.5), layout="constrained")
    table = figure.subplots(len(spaces), 2, squeeze=False, sharex="row", sharey="row")
    for (data, prior), (title, space) in zip(table, spaces.items(), strict=True):
        _draw_means(data, space.means.cpu(), labels, label_names)
        _draw_lines(data, space)
        data.set_title(f"{title}: held-out data, posterior means", fontsize=12)
        for name, points in space.clouds.items():
            size = 4 if len(points) > 500 else 10
            color = CLOUD_COLORS[name]
            x, y = points.cpu().T.numpy()
            prior.scatter(x, y, s=size, c=color, alpha=0.6, lw=0, label=name)
        prior.set_title(f"{title}: prior, pockets and leaks", fontsize=12)
        for panel in (data, prior):
            panel.set(xlabel=space.names[0], ylabel=space.names[1])
            panel.set_aspect("equal", adjustable="box")
            panel.tick_params(labelleft=True, labelbottom=True)
    anchors: tuple[Any, Any] = ("outside lower left", "outside lower right")
    for column, anchor in enumerate(anchors):
        handles, names = table[0, column].get_legend_handles_labels()
        if handles:
            figure.legend(
                handles,
                names,
                loc=anchor,
                ncols=5 - 2 * column,
                frameon=False,
                fontsize=8,
                markerscale=2.5,
                columnspacing=1.0,
                handletextpad=0.2,
            )
    return figure


def _draw_means(
    panel: Axes, means: Tensor, labels: Tensor | None, label_names: Sequence[str] | None
) -> None:
    classes = [] if labels is None or labels.dim() != 1 else labels.unique().tolist()
    if not 1 < len(classes) <= len(LABEL_COLORS):
        color = CLOUD_COLORS["aggregate posterior"]
        x, y = means.T.numpy()
        panel.scatter(x, y, s=8, c=color, lw=0, label="posterior means")
        return
    assert labels is not None
    for one, color in zip(classes, LABEL_COLORS, strict=False):
        name = str(one) if label_names is None else label_names[one]
        x, y = means[labels == one].T.numpy()
        panel.scatter(x, y, s=8, c=color, lw=0, alpha=0.7, label=name)


def _draw_lines(panel: Axes, space: LatentSpace) -> None:
    least = _POINT * _extent(
        torch.cat([space.means.cpu(), *map(Tensor.cpu, space.clouds.values())])
    )
    for number, line in enumerate(space.lines, 1):
        if _extent(line) < least:
            continue
        x, y = line.cpu().T.numpy()
        panel.plot(x, y, color="black", lw=1.2, marker="o", ms=2.5)
        box = {"boxstyle": "circle,pad=0.15", "fc": "black", "ec": "white"}
        weight: dict[str, Any] = {"fontsize": 8, "fontweight": "bold", "color": "white"}
        panel.text(x[0], y[0], str(number), ha="center", va="center", bbox=box, **weight)


def _extent(points: Tensor) -> float:
    """Return the larger side of the box around points of shape (count, 2)."""
    return float((points.amax(0) - points.amin(0)).max())
