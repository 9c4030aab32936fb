"""True posteriors of two latents, and over each the contours of what guides make of it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch import Tensor

from papers.posteriors.study import PosteriorResult
from pyro_dpvae.metrics import PosteriorGrid, cell_kl

__all__ = ["posteriors_figure"]

_SHARES = (0.95, 0.75, 0.5, 0.25)
_FILL = ("#e4e4e4", "#cccccc", "#b0b0b0", "#8f8f8f")
_GUIDE = "#d1351b"
_FINER = 4  # lines of the pictures to a line of the grid
_MARGIN = 0.15  # of the larger side of what is drawn


def posteriors_figure(
    results: Mapping[str, PosteriorResult], *, guides: Mapping[str, Sequence[str]]
) -> Figure:
    """Return a figure with a row for each model and a panel for each of its guides.

    A panel holds the posterior p(z | x) of one datum in grey and q(z | x) of the guide in lines.
    Contours enclose 25, 50, 75 and 95 % of the mass. Above it stands the guide's title and
    KL(q || p) of this datum.

    Args:
        results: of each model, by the title of its row.
        guides: the guides that are drawn, by the title of the row; as many in each.
    """
    columns = max(map(len, guides.values()))
    figure = Figure(figsize=(3.5 * columns, 3.7 * len(results) + 0.6), layout="constrained")
    rows = figure.subplots(len(results), columns, squeeze=False)
    for row, (title, result) in zip(rows, results.items(), strict=True):
        drawn = {guide: result.log_cell_mass[guide] for guide in guides[title]}
        window = _window(result.shown, drawn.values())
        for panel, (guide, log_q) in zip(row, drawn.items(), strict=True):
            _fill(panel, result.shown)
            _lines(panel, result.shown, log_q)
            divergence = float(cell_kl(log_q, result.shown.log_mass))
            panel.set_title(f"{guide}: {divergence:.2f} nats", fontsize=11)
            panel.set(xlim=window[0], ylim=window[1], aspect="equal")
            panel.set_xlabel("$z_1$")
            panel.tick_params(labelsize=8)
        row[0].set_ylabel(f"{title}\n$z_2$", fontsize=11)
    figure.legend(
        [Patch(facecolor=_FILL[2]), Line2D([], [], color=_GUIDE)],
        ["true posterior $p(z|x)$", "the guide's $q(z|x)$"],
        loc="outside lower center",
        ncols=2,
        frameon=False,
    )
    return figure


def _fill(panel: Axes, grid: PosteriorGrid) -> None:
    line, mass = _square(grid, grid.log_mass)
    levels = [*_levels(mass), float(mass.max())]
    panel.contourf(line, line, mass.T.numpy(), levels=levels, colors=_FILL)


def _lines(panel: Axes, grid: PosteriorGrid, log_q: Tensor) -> None:
    line, mass = _square(grid, log_q)
    panel.contour(line, line, mass.T.numpy(), levels=_levels(mass), colors=_GUIDE, linewidths=1.3)


def _square(grid: PosteriorGrid, log_mass: Tensor) -> tuple[NDArray[Any], Tensor]:
    """Return finer coordinates along a side, and the masses (side, side) there, z_1 first."""
    from scipy.interpolate import RectBivariateSpline

    # Logs of densities are smooth, so that lines between the cells' centers need no finer grid.
    line = torch.linspace(-grid.reach, grid.reach, grid.side).numpy()
    finer = torch.linspace(-grid.reach, grid.reach, _FINER * (grid.side - 1) + 1).numpy()
    square = log_mass.cpu().reshape(grid.side, grid.side).numpy()
    values = torch.from_numpy(RectBivariateSpline(line, line, square)(finer, finer))
    return finer, values.flatten().softmax(0).reshape(values.shape)


def _levels(mass: Tensor) -> list[float]:
    """Return the masses above which cells add up to the shares, from the lowest."""
    sorted_mass = mass.flatten().sort(descending=True).values
    shares = torch.tensor(_SHARES, dtype=mass.dtype)
    return sorted_mass[torch.searchsorted(sorted_mass.cumsum(0), shares)].tolist()


def _window(
    grid: PosteriorGrid, masses: Iterable[Tensor]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the limits of a square around all that is drawn."""
    drawn = [log_mass[0].cpu().exp() for log_mass in (grid.log_mass, *masses)]
    inside = torch.stack([mass >= _levels(mass)[0] for mass in drawn]).any(0)
    low, high = grid.z.cpu()[inside].aminmax(dim=0)
    half = float((high - low).max()) * (0.5 + _MARGIN)
    first, second = ((center - half, center + half) for center in ((low + high) / 2).tolist())
    return first, second
