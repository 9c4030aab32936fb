"""Data beside what encoder and decoder make of them."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyro_dpvae.plots.samples import marker_of
from pyro_dpvae.plots.traversal import draw_rows

__all__ = ["reconstruction_figure"]

_IN_A_ROW = 10
_DATA, _FOUND = "#595959", "#d55e00"


def reconstruction_figure(x: Tensor, found: Tensor) -> Figure:
    """Return a figure of data and their reconstructions.

    Args:
        x: images (count, channels, height, width) in [0, 1], drawn in rows above their
            reconstructions; points (count, 2), joined to theirs by a line; vectors (count, size)
            or sequences (count, steps, features), a panel each for the first eight.
        found: the reconstructions, of the same shape.
    """
    figure = Figure(layout="constrained")
    if x.dim() == 4:
        columns = min(len(x), _IN_A_ROW)
        white = torch.ones(-len(x) % columns, *x.shape[1:])
        rows = [torch.cat([images.cpu(), white]).split(columns) for images in (x, found)]
        pairs = [row for both in zip(*rows, strict=True) for row in both]
        labels = ["data", "reconstructions"] * len(rows[0])
        ratio = draw_rows(figure.subplots(), pairs, labels)
        figure.set_size_inches(8.2 + 0.14 * len("reconstructions"), 8 * ratio + 0.3)
    elif x.dim() == 2 and x.shape[1] == 2:
        axes = figure.subplots()
        lines = torch.stack([x, found], 1).cpu()
        axes.plot(lines[..., 0].T.numpy(), lines[..., 1].T.numpy(), color="#b8b8b8", lw=0.7)
        for points, name, color in ((x, "data", _DATA), (found, "reconstructions", _FOUND)):
            across, up = points.cpu().T.numpy()
            axes.scatter(across, up, s=8, color=color, label=name, zorder=2)
        axes.legend(fontsize=8)
        axes.set(xlabel="$x_1$", ylabel="$x_2$")
        axes.set_aspect("equal", adjustable="datalim")
        figure.set_size_inches(6, 6)
    else:
        count = min(len(x), 8)
        panels = figure.subplots(count, 1, squeeze=False)[:, 0]
        # One feature of a sequence after the other.
        drawn = [(both.mT if both.dim() == 3 else both).flatten(1) for both in (x, found)]
        marker = marker_of(drawn[0].shape[1])
        for axes, one, other in zip(panels, *drawn, strict=False):
            for values, name, color in ((one, "data", _DATA), (other, "reconstruction", _FOUND)):
                axes.plot(values.cpu().numpy(), color=color, lw=1.0, label=name, marker=marker)
        panels[0].legend(fontsize=8)
        panels[-1].set_xlabel("coordinate")
        figure.set_size_inches(8, 1.4 * count + 0.4)
    return figure
