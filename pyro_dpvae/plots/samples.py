"""A picture of samples: a grid of images, a scatter of points, or a set of lines."""

import math

import torch
from matplotlib.figure import Figure
from torch import Tensor

__all__ = ["sample_figure"]


def sample_figure(samples: Tensor) -> Figure:
    """Return a figure of samples of one of the shapes that data have.

    Args:
        samples: images (count, channels, height, width) in [0, 1] with 1 or 3 channels, drawn as
            a grid; points (count, 2), as a scatter; vectors (count, size), a line each.

    Raises:
        ValueError: for another shape.
    """
    samples = samples.detach().cpu()
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    if samples.dim() == 4 and samples.shape[1] in (1, 3):
        grid = _grid(samples.clamp(0, 1))
        height, width = grid.shape[:2]
        figure.set_size_inches(8, 8 * height / width)
        axes.imshow(grid.numpy().squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()
    elif samples.dim() == 2 and samples.shape[1] == 2:
        figure.set_size_inches(6, 6)
        x, y = samples.T.numpy()
        axes.scatter(x, y, s=4)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set(xlabel="$x_1$", ylabel="$x_2$")
    elif samples.dim() == 2:
        figure.set_size_inches(8, 4)
        axes.plot(samples.T.numpy(), lw=0.8)
        axes.set(xlabel="coordinate", ylabel="value")
    else:
        raise ValueError(
            "samples must be images (count, 1 or 3, height, width) or vectors (count, size), "
            f"got {tuple(samples.shape)}"
        )
    return figure


def _grid(images: Tensor) -> Tensor:
    """Return images side by side, of shape (height, width, channels), with a grey line between."""
    count, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(count * height / width))
    rows = math.ceil(count / columns)
    canvas = torch.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), 0.5)
    for index, image in enumerate(images):
        top, left = index // columns * (height + 1), index % columns * (width + 1)
        canvas[top : top + height, left : left + width] = image.permute(1, 2, 0)
    return canvas
