"""The leakage score against its threshold."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from pyro_dpvae.metrics import Estimate

__all__ = ["leakage_figure"]


def leakage_figure(curves: Mapping[str, Sequence[Estimate]]) -> Figure:
    """Return a figure of leakage scores with bands of two standard errors, where these are known.

    Args:
        curves: by title, estimates as of ``leakage_curve``, with their thresholds in
            ``settings``.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for label, curve in curves.items():
        thresholds = np.array([estimate.settings["threshold"] for estimate in curve])
        values = np.array([estimate.value for estimate in curve])
        errors = np.array([estimate.standard_error for estimate in curve])
        values[np.isnan(errors)] = np.nan
        axes.plot(thresholds, values, marker="o", ms=3, label=label)
        axes.fill_between(thresholds, values - 2 * errors, values + 2 * errors, alpha=0.2, lw=0)
    axes.set(xlabel=r"threshold $\tau$ on $\log p(z)$ (nats)", ylabel="leakage score (nats)")
    axes.legend(frameon=False)
    return figure
