"""A picture of samples: a grid of images, a scatter of points, or a set of lines."""

import math
from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pyro_dpvae.plots.clouds import CLOUD_COLORS

__all__ = ["draw_images", "draw_samples", "image_grid", "name_columns", "sample_figure"]

_NAMED = 60  # columns whose names can be read beside each other
_MOST_LINES = 20  # vectors that can be told apart in one panel


def sample_figure(samples: Tensor, columns: Sequence[str] | None = None) -> Figure:
    """Return a figure of samples of one of the shapes that data have.

    Args:
        samples: images (count, channels, height, width) in [0, 1] with 1 or 3 channels, drawn as
            a grid; points (count, 2), as a scatter; vectors (count, size), a line each for the
            first 20; sequences (count, steps, features), a line for each feature of each, in the
            feature's colour.
        columns: the names of the coordinates of a vector.

    Raises:
        ValueError: for another shape.
    """
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    width, height = draw_samples(axes, samples)
    if columns is not None and samples.shape[1:] == (2,):
        axes.set(xlabel=columns[0], ylabel=columns[1])
    elif samples.dim() == 2:
        name_columns(axes, columns)
    figure.set_size_inches(width, height)
    return figure


def name_columns(axes: Axes, columns: Sequence[str] | None) -> None:
    """Write the names of coordinates along the horizontal axis, if they can be read there."""
    if columns is not None and len(columns) <= _NAMED:
        axes.set_xticks(range(len(columns)), columns, rotation=90)
        axes.set_xlabel("")


def draw_samples(
    axes: Axes, samples: Tensor, *, color: str = CLOUD_COLORS["prior samples"]
) -> tuple[float, float]:
    """Draw samples, as :func:`sample_figure` does, and return the size that suits, in inches."""
    samples = samples.detach().cpu()
    if samples.dim() == 4 and samples.shape[1] in (1, 3):
        ratio = draw_images(axes, samples)
        axes.set_axis_off()
        return 8.0, 8.0 * ratio
    if samples.dim() == 2 and samples.shape[1] == 2:
        x, y = samples.T.numpy()
        axes.scatter(x, y, s=4, color=color)
        axes.set_aspect("equal", adjustable="box")
        axes.set(xlabel="$x_1$", ylabel="$x_2$")
        across, up = axes.dataLim.size
        return 6.0, 6.0 * min(max(up / across, 0.5), 2.0) + 0.4
    if samples.dim() == 2:
        marker = marker_of(samples.shape[1])
        lines = samples[:_MOST_LINES].T.numpy()
        axes.plot(lines, lw=0.8, color=color, alpha=0.6, marker=marker)
        axes.set(xlabel="coordinate", ylabel="value")
        if len(samples) > _MOST_LINES:
            note = f"{_MOST_LINES} of {len(samples)} samples"
            axes.set_title(note, fontsize=8, loc="right")
        return 8.0, 4.0
    if samples.dim() == 3:
        for feature in range(samples.shape[2]):
            lines, color = samples[..., feature].T.numpy(), f"C{feature % 10}"
            axes.plot(lines, lw=0.8, color=color, marker=marker_of(len(lines)))
        axes.set(xlabel="step", ylabel="value")
        return 8.0, 4.0
    raise ValueError(
        "samples must be images (count, 1 or 3, height, width), vectors (count, size) or "
        "sequences (count, steps, features), "
        f"got {tuple(samples.shape)}"
    )


def marker_of(length: int) -> str | None:
    """Return the marker of a line of so many values: that of one value has no length."""
    return "o" if length == 1 else None


def draw_images(axes: Axes, images: Tensor, columns: int | None = None) -> float:
    """Draw images in [0, 1] as an :func:`image_grid`; return its height / width."""
    grid = image_grid(images.cpu().clamp(0, 1), columns)
    axes.imshow(grid.numpy().squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    return grid.shape[0] / grid.shape[1]


def image_grid(images: Tensor, columns: int | None = None) -> Tensor:
    """Return images side by side, of shape (height, width, channels), with a grey line between.

    Places without an image are white.

    Args:
        images: of shape (count, channels, height, width).
        columns: how many in a row; by default about as many as make a square, such that the last
            row is as full as can be.
    """
    count, channels, height, width = images.shape
    if columns is None:
        square = math.ceil(math.sqrt(count * height / width))
        wider = range(square, int(1.4 * square) + 1)
        columns = max(wider, key=lambda number: ((count % number or number) / number, -number))
    rows = math.ceil(count / columns)
    canvas = torch.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), 0.5)
    if count % columns:
        canvas[(rows - 1) * (height + 1) :, count % columns * (width + 1) :] = 1.0
    for index, image in enumerate(images):
        top, left = index // columns * (height + 1), index % columns * (width + 1)
        canvas[top : top + height, left : left + width] = image.permute(1, 2, 0)
    return canvas
