"""The leakage score against its threshold."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pyro_dpvae.metrics import Estimate

__all__ = ["AXES", "draw_leakage", "leakage_figure"]

# Not those of clouds, which mean something else.
_COLORS = "#4d4d4d", "#7a4fa3"
AXES = r"threshold $\tau$ on $\log p(z)$ (nats)", "leakage score (nats)"
"""The labels of the two axes."""


def leakage_figure(curves: Mapping[str, Sequence[Estimate]]) -> Figure:
    """Return a figure of leakage scores with bands of two standard errors, where these are known.

    Args:
        curves: by title, estimates as of ``leakage_curve``, with their thresholds in
            ``settings``.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    draw_leakage(axes, curves)
    axes.set(xlabel=AXES[0], ylabel=AXES[1])
    handles, labels = axes.get_legend_handles_labels()
    band = Patch(color="#4d4d4d", alpha=0.2, lw=0)
    axes.legend([*handles, band], [*labels, "± 2 standard errors"], frameon=False)
    return figure


def draw_leakage(axes: Axes, curves: Mapping[str, Sequence[Estimate]]) -> None:
    """Draw leakage scores, as :func:`leakage_figure` does, without a legend."""
    axes.axhline(0, color="#b8b8b8", lw=0.8)
    axes.set_prop_cycle(color=_COLORS)
    for label, curve in curves.items():
        thresholds = np.array([estimate.settings["threshold"] for estimate in curve])
        values = np.array([estimate.value for estimate in curve])
        errors = np.array([estimate.standard_error for estimate in curve])
        values[np.isnan(errors)] = np.nan
        axes.plot(thresholds, values, marker="o", ms=3, label=label)
        axes.fill_between(thresholds, values - 2 * errors, values + 2 * errors, alpha=0.2, lw=0)
