"""Latent space: aggregate posterior, prior, pockets and leaks, in both spaces."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from torch import Tensor

__all__ = ["latent_figure"]

_COLORS = ("#b8b8b8", "#1f6fb4", "#d1351b", "#e69f00")
_POINT = 0.01  # of a panel: what is smaller is a point


def latent_figure(
    spaces: Mapping[str, Mapping[str, Tensor]],
    *,
    names: Mapping[str, tuple[str, str]],
    curves: Mapping[str, Sequence[Tensor]] | None = None,
) -> Figure:
    """Return a figure with a panel for each space, and in it a cloud of points for each title.

    Args:
        spaces: by title of the panel; in each, by title, points of shape (count, 2).
        names: by title of the panel, the names of the two coordinates.
        curves: by title of the panel, lines of shape (points, 2), drawn in black over the clouds
            unless they are next to a point, shorter than 1 % of the panel.
    """
    figure = Figure(figsize=(5.2 * len(spaces), 5.2), layout="constrained")
    axes = figure.subplots(1, len(spaces), squeeze=False)[0]
    for panel, (title, clouds) in zip(axes, spaces.items(), strict=True):
        for color, (label, points) in zip(_COLORS, clouds.items(), strict=False):
            x, y = points.cpu().T.numpy()
            size = 4 if len(points) > 500 else 10
            panel.scatter(x, y, s=size, c=color, alpha=0.6, lw=0, label=label)
        least = _POINT * _extent(torch.cat(list(clouds.values())))
        lines = [line for line in (curves or {}).get(title, ()) if _extent(line) >= least]
        for number, line in enumerate(lines):
            x, y = line.cpu().T.numpy()
            legend = {"label": "traversals"} if number == 0 else {}
            panel.plot(x, y, color="black", lw=1.2, marker="o", ms=2.5, **legend)
        panel.set_title(title, fontsize=12)
        panel.set(xlabel=names[title][0], ylabel=names[title][1])
        panel.set_aspect("equal", adjustable="datalim")
    handles: dict[str, Artist] = {}
    for panel in axes:
        found, labels = panel.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=len(handles),
        markerscale=3,
        frameon=False,
    )
    return figure


def _extent(points: Tensor) -> float:
    """Return how far points of shape (count, 2) reach, in the direction of more."""
    return float((points.amax(0) - points.amin(0)).max())
