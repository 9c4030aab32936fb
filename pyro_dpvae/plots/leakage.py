"""The leakage score against its threshold."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_dpvae.metrics import Estimate

__all__ = ["leakage_figure", "leakage_panels"]

# Not those of clouds, which mean something else.
_COLORS = "#4d4d4d", "#7a4fa3"
_AXES = r"threshold $\tau$ on $\log p(z)$ (nats)", "leakage score (nats)"


def leakage_figure(curves: Mapping[str, Sequence[Estimate]]) -> Figure:
    """Return a figure of leakage scores with bands of two standard errors, where these are known.

    Args:
        curves: by title, estimates as of ``leakage_curve``, with their thresholds in
            ``settings``.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    _draw(axes, curves)
    axes.set(xlabel=_AXES[0], ylabel=_AXES[1])
    axes.legend(frameon=False)
    return figure


def leakage_panels(panels: Mapping[str, Mapping[str, Sequence[Estimate]]]) -> Figure:
    """Return a figure with a panel of leakage scores, as of :func:`leakage_figure`, per title.

    Args:
        panels: by title of the panel, curves by title, the same titles in each.
    """
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(3.6 * columns, 2.9 * rows + 0.4), layout="constrained")
    table = figure.subplots(rows, columns, squeeze=False)
    for axes, (title, curves) in zip(table.flat, panels.items(), strict=False):
        _draw(axes, curves)
        axes.set_title(title, fontsize=12)
        axes.tick_params(labelsize=8)
    for axes in table.flat[len(panels) :]:
        axes.remove()
    figure.supxlabel(_AXES[0], fontsize=11)
    figure.supylabel(_AXES[1], fontsize=11)
    handles, labels = table[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=columns, frameon=False, fontsize=11
    )
    return figure


def _draw(axes: Axes, curves: Mapping[str, Sequence[Estimate]]) -> None:
    axes.axhline(0, color="#b8b8b8", lw=0.8)
    axes.set_prop_cycle(color=_COLORS)
    for label, curve in curves.items():
        thresholds = np.array([estimate.settings["threshold"] for estimate in curve])
        values = np.array([estimate.value for estimate in curve])
        errors = np.array([estimate.standard_error for estimate in curve])
        values[np.isnan(errors)] = np.nan
        axes.plot(thresholds, values, marker="o", ms=3, label=label)
        axes.fill_between(thresholds, values - 2 * errors, values + 2 * errors, alpha=0.2, lw=0)
