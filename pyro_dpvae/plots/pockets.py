"""Samples of the prior, of its pockets and of its leaks, side by side."""

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from pyro_dpvae.plots.samples import draw_samples

__all__ = ["pockets_figure"]


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
