"""Traversals: what the decoder makes of lines through latent space."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from pyro_dpvae.plots.samples import image_grid

__all__ = ["draw_rows", "rows_figure", "traversal_figure"]

_FRAME = "#d55e00"


def traversal_figure(
    rows: Sequence[Tensor], labels: Sequence[str], *, title: str, data: Tensor | None = None
) -> Figure:
    """Return a figure of traversals: a row of images each, or a line of points.

    Args:
        rows: images (steps, channels, height, width) in [0, 1]; or points (steps, 2), drawn as
            lines over the data; or longer vectors, a panel of lines each; or sequences (steps,
            times, features), likewise, one feature after the other.
        labels: of the rows.
        title: of the figure.
        data: points (count, 2) behind the lines.
    """
    rows = [row.mT.flatten(1) if row.dim() == 3 else row for row in rows]
    first = rows[0]
    figure = Figure(layout="constrained")
    if first.dim() == 4:
        axes = figure.subplots()
        ratio = draw_rows(axes, rows, labels)
        # Labels beside a picture whose aspect is fixed: room for the longest.
        figure.set_size_inches(8.2 + 0.14 * max(map(len, labels)), 8 * ratio + 0.5)
    elif first.shape[1] == 2:
        figure.set_size_inches(6, 6)
        axes = figure.subplots()
        if data is not None:
            x, y = data.cpu().T.numpy()
            axes.scatter(x, y, s=3, c="#b8b8b8", lw=0)
        for row, label in zip(rows, labels, strict=True):
            axes.plot(*row.cpu().T.numpy(), marker="o", ms=3, lw=1, label=label)
        axes.legend(fontsize=8)
        axes.set(xlabel="$x_1$", ylabel="$x_2$")
        axes.set_aspect("equal", adjustable="datalim")
    else:
        figure.set_size_inches(8, 1.6 * len(rows))
        for axes, row, label in zip(
            figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows, labels, strict=True
        ):
            axes.plot(row.cpu().T.numpy(), lw=0.8)
            axes.set_ylabel(label, fontsize=8)
    figure.suptitle(title, fontsize=12)
    return figure


def draw_rows(axes: Axes, rows: Sequence[Tensor], labels: Sequence[str]) -> float:
    """Draw images (steps, channels, height, width) in labelled rows; return height / width."""
    grid = image_grid(torch.cat(list(rows)).cpu().clamp(0, 1), columns=len(rows[0]))
    axes.imshow(grid.numpy().squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    step = rows[0].shape[2] + 1
    axes.set_yticks([step * (row + 0.5) for row in range(len(rows))], labels)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return grid.shape[0] / grid.shape[1]


def rows_figure(
    panels: Mapping[str, Sequence[Tensor]],
    labels: Sequence[str],
    *,
    title: str,
    columns: Sequence[str],
    marked: int,
) -> Figure:
    """Return a figure with panels of images in rows, side by side.

    Args:
        panels: by title, rows of images (steps, channels, height, width) in [0, 1], as many and
            as long in each.
        labels: of the rows.
        title: of the figure.
        columns: names of the images of a row, which stand below.
        marked: the index of the column that is framed.
    """
    figure = Figure(layout="constrained")
    for number, (axes, (name, rows)) in enumerate(
        zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True)
    ):
        ratio = draw_rows(axes, rows, labels if number == 0 else [""] * len(labels))
        axes.set_title(name, fontsize=11)
        count, _, height, width = rows[0].shape
        axes.set_xticks([(width + 1) * (i + 0.5) - 1 for i in range(count)], columns, fontsize=9)
        corner, tall = (marked * (width + 1) - 1, -1), len(rows) * (height + 1)
        frame = Rectangle(corner, width + 1, tall, fill=False, ec=_FRAME, lw=2, clip_on=False)
        axes.add_patch(frame)
    # Titles have lines of 0.2 inches; below are the columns' names.
    lines = 0.2 * (title.count("\n") + 1)
    figure.set_size_inches(3.5 * len(panels) + 0.6, 3.4 * ratio + lines + 0.6)
    figure.suptitle(title, fontsize=12)
    return figure
