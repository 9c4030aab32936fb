"""Samples of the prior, of its pockets and of its leaks, side by side."""

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from pyro_dpvae.plots.samples import draw_samples

__all__ = ["pockets_figure", "samples_table"]


def pockets_figure(samples: Mapping[str, Tensor], data: Tensor | None = None) -> Figure:
    """Return a figure with a panel of samples for each title.

    Args:
        samples: by title; images (count, channels, height, width) in [0, 1], or vectors.
        data: points (count, 2), drawn in grey behind samples that are points.
    """
    figure = Figure(layout="constrained")
    axes = figure.subplots(1, len(samples), squeeze=False)[0]
    for panel, (title, drawn) in zip(axes, samples.items(), strict=True):
        if data is not None and data.dim() == 2 and data.shape[1] == 2:
            panel.scatter(*data.cpu().T.numpy(), s=3, c="#b8b8b8", lw=0)
        width, height = draw_samples(panel, drawn)
        panel.set_title(title, fontsize=11)
    figure.set_size_inches(5 * len(samples), 5 * height / width + 0.4)
    return figure


def samples_table(rows: Mapping[str, Mapping[str, Tensor]]) -> Figure:
    """Return a figure with a row and a column for each title, and samples in each panel.

    Args:
        rows: by title of the row, by title of the column, the same in each row: images (count,
            channels, height, width) in [0, 1], or vectors; of one shape.
    """
    figure = Figure(layout="constrained")
    titles = list(next(iter(rows.values())))
    table = figure.subplots(len(rows), len(titles), squeeze=False)
    for panels, (name, row) in zip(table, rows.items(), strict=True):
        for panel, drawn in zip(panels, row.values(), strict=True):
            width, height = draw_samples(panel, drawn)
            panel.set_axis_on()  # for the label of the row
            panel.set(xticks=[], yticks=[], xlabel="", ylabel="")
            panel.spines[:].set_visible(False)
        panels[0].set_ylabel(name, fontsize=12)
    for panel, title in zip(table[0], titles, strict=True):
        panel.set_title(title, fontsize=12)
    figure.set_size_inches(2.6 * len(titles) + 0.3, 2.65 * len(rows) * height / width + 0.45)
    return figure
