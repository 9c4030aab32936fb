"""The paper's first figure: pockets of a regularized VAE on two moons, and their absence."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pyro_dpvae.recipes.two_moons import MoonsResult

__all__ = ["moons_figure"]

_DATA, _PRIOR, _LOW = "#b8b8b8", "#1f6fb4", "#d1351b"
_TITLES = (
    "prior samples, decoded",
    "representation space",
    "generation space",
    "low-posterior samples, decoded",
)


def moons_figure(results: Mapping[str, MoonsResult], *, shown: int = 1000) -> Figure:
    """Return a figure with a row of four panels for each system.

    The panels are, after figures 1 and 3 of Bhalodia, Lee, Elhabian (2020): decoded prior samples
    over the data; aggregate posterior, prior samples and low-posterior samples in representation
    space; the same in generation space; decoded low-posterior samples over the data.

    Args:
        results: the systems by title.
        shown: how many prior samples are drawn.
    """
    figure = Figure(figsize=(14, 3.6 * len(results)), layout="constrained")
    rows = figure.subplots(len(results), 4, squeeze=False)
    for row, (title, result) in zip(rows, results.items(), strict=True):
        _scatter(row[0], result.data, _DATA, "data")
        _scatter(row[0], result.x[:shown], _PRIOR, "decoded prior samples")
        for axes, prefix in ((row[1], "z"), (row[2], "z0")):
            _scatter(axes, getattr(result, f"{prefix}_data"), _DATA, "aggregate posterior")
            _scatter(axes, getattr(result, prefix)[:shown], _PRIOR, "prior samples")
            _scatter(axes, getattr(result, f"{prefix}_low"), _LOW, "low-posterior samples")
        _scatter(row[3], result.data, _DATA, "data")
        _scatter(row[3], result.x_low, _LOW, "decoded low-posterior samples")
        row[0].set_ylabel(title, fontsize=13)
        for axes in row:
            axes.set_aspect("equal", adjustable="datalim")
            axes.tick_params(labelsize=8)
    for axes, name in zip(rows[0], _TITLES, strict=True):
        axes.set_title(name, fontsize=12)
    handles = {
        label: handle
        for axes in rows[0]
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=len(handles),
        markerscale=4,
        frameon=False,
    )
    return figure


def _scatter(axes: Axes, points: Tensor, color: str, label: str) -> None:
    x, y = points.cpu().T.numpy()
    axes.scatter(x, y, s=3, c=color, alpha=0.6, lw=0, label=label)
