"""Traversals: what the decoder makes of lines through latent space."""

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pyro_dpvae.plots.samples import draw_images, marker_of, name_columns

__all__ = ["draw_rows", "traversal_figure"]


def traversal_figure(
    rows: Sequence[Tensor],
    labels: Sequence[str],
    *,
    title: str,
    data: Tensor | None = None,
    originals: Sequence[Tensor] | None = None,
    steps: Sequence[str] | None = None,
    axis: str = "",
    columns: Sequence[str] | None = None,
) -> Figure:
    """Return a figure of traversals: a row of images each, or a line of points.

    Args:
        rows: images (steps, channels, height, width) in [0, 1]; or points (steps, 2), drawn as
            lines over the data; or longer vectors, a panel of lines each; or sequences (steps,
            times, features), likewise, one feature after the other.
        labels: the titles of the rows.
        title: the title of the figure.
        data: points (count, 2) behind the lines.
        originals: for each row the two data between which it goes, of shape (2, ...): images at
            the ends of the row, points as crosses, vectors as dashed lines.
        steps: the names of the steps, as numbers on the axis.
        axis: the name of the axis of steps.
        columns: the names of the coordinates of vectors.
    """
    rows = [row.mT.flatten(1) if row.dim() == 3 else row for row in rows]
    ends = [one.mT.flatten(1) if one.dim() == 3 else one for one in originals or ()]
    first = rows[0]
    figure = Figure(layout="constrained")
    if first.dim() == 4:
        if ends:
            rows = [
                torch.cat([pair[:1].to(row), row, pair[1:].to(row)])
                for row, pair in zip(rows, ends, strict=True)
            ]
            steps = ["datum", *(steps or [""] * len(first)), "datum"]
        axes = figure.subplots()
        ratio = draw_rows(axes, rows, labels)
        if steps is not None:
            width = first.shape[3] + 1
            places = [width * (number + 0.5) - 1 for number in range(len(steps))]
            axes.set_xticks(places, steps)
        axes.set_xlabel(axis)
        # Labels beside a picture whose aspect is fixed: room for the longest.
        height = 8 * ratio + 0.5 + 0.2 * (steps is not None) + 0.2 * bool(axis)
        figure.set_size_inches(8.2 + 0.14 * max(map(len, labels)), height)
    elif first.shape[1] == 2:
        figure.set_size_inches(6, 6)
        axes = figure.subplots()
        if data is not None:
            x, y = data.cpu().T.numpy()
            axes.scatter(x, y, s=3, c="#b8b8b8", lw=0)
        for index, (row, label) in enumerate(zip(rows, labels, strict=True)):
            x, y = row.cpu().T.numpy()
            (line,) = axes.plot(x, y, marker="o", ms=3, lw=1, label=label)
            if ends:
                x, y = ends[index].cpu().T.numpy()
                axes.plot(x, y, marker="x", ls="", ms=7, color=line.get_color())
            elif steps is not None:
                near: dict[str, Any] = {"xytext": (3, 3), "textcoords": "offset points"}
                for step, place in zip(steps, zip(x, y, strict=True), strict=True):
                    axes.annotate(step, place, color=line.get_color(), fontsize=8, **near)
        if ends:
            axes.plot([], [], marker="x", ls="", color="black", label="the two data")
        axes.legend(fontsize=8, title="" if ends else axis, title_fontsize=8)
        axes.set(xlabel="$x_1$", ylabel="$x_2$")
        axes.set_aspect("equal", adjustable="datalim")
    else:
        _draw_vectors(figure, rows, labels, ends=ends, steps=steps)
        figure.axes[-1].set_xlabel("coordinate")
        name_columns(figure.axes[-1], columns)
    figure.suptitle(title, fontsize=12)
    return figure


def draw_rows(axes: Axes, rows: Sequence[Tensor], labels: Sequence[str]) -> float:
    """Draw images (steps, channels, height, width) in labelled rows; return height / width."""
    ratio = draw_images(axes, torch.cat(list(rows)), len(rows[0]))
    step = rows[0].shape[2] + 1
    axes.set_yticks([step * (row + 0.5) for row in range(len(rows))], labels)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return ratio


def _draw_vectors(
    figure: Figure,
    rows: Sequence[Tensor],
    labels: Sequence[str],
    *,
    ends: Sequence[Tensor],
    steps: Sequence[str] | None,
) -> None:
    """Draw a panel for each row, with a line for each step, from dark to light."""
    names = steps or [f"step {number + 1}" for number in range(len(rows[0]))]
    figure.set_size_inches(8, 1.6 * len(rows) + 0.6)
    panels = figure.subplots(len(rows), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    for index, (axes, row, label) in enumerate(zip(panels, rows, labels, strict=True)):
        shades = colormaps["viridis"](torch.linspace(0, 0.9, len(row)).numpy())
        for number, (values, shade) in enumerate(zip(row.cpu().numpy(), shades, strict=True)):
            name = names[number] if number in (0, len(row) - 1) else None
            axes.plot(values, lw=0.9, color=shade, label=name, marker=marker_of(len(values)))
        if ends:
            for values, shade in zip(ends[index].cpu().numpy(), shades[[0, -1]], strict=True):
                mark = "x" if len(values) == 1 else None
                axes.plot(values, lw=1.2, ls="--", color=shade, label="datum", marker=mark)
        axes.set_ylabel(label, fontsize=8)
    panels[0].legend(fontsize=7, ncols=4)
