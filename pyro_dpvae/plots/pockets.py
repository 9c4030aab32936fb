"""Samples of the prior, of its pockets and of its leaks, side by side."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor

from pyro_dpvae.plots.clouds import CLOUD_COLORS
from pyro_dpvae.plots.samples import draw_samples, name_columns

__all__ = ["pockets_figure"]


def pockets_figure(
    samples: Mapping[str, Tensor],
    data: Tensor | None = None,
    *,
    columns: Sequence[str] | None = None,
) -> Figure:
    """Return a figure with a panel of samples for each title; panels share limits.

    Args:
        samples: by title, one of :data:`CLOUD_COLORS`; images (count, channels, height, width) in
            [0, 1], or vectors.
        data: points (count, 2), drawn in grey behind samples that are points.
        columns: the names of the coordinates of vectors.
    """
    figure = Figure(layout="constrained")
    shared = next(iter(samples.values())).dim() < 4
    panels = figure.subplots(1, len(samples), squeeze=False, sharex=shared, sharey=shared)[0]
    for panel, (title, drawn) in zip(panels, samples.items(), strict=True):
        color = CLOUD_COLORS[title]
        if data is not None and data.dim() == 2 and data.shape[1] == 2:
            panel.scatter(*data.cpu().T.numpy(), s=3, c=CLOUD_COLORS["data"], lw=0)
        width, height = draw_samples(panel, drawn, color=color)
        if drawn.dim() == 2 and drawn.shape[1] > 2:
            name_columns(panel, columns)
        panel.set_title(title, fontsize=11, color=color, loc="left")
    figure.set_size_inches(5 * len(samples), 5 * height / width + 0.4)
    return figure
