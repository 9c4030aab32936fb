"""Traversals: what the decoder makes of lines through latent space."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pyro_dpvae.plots.samples import image_grid

__all__ = ["draw_rows", "traversal_figure"]


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
