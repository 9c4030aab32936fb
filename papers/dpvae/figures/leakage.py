"""Figure 4: the leakage score against its threshold."""

import math
from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from papers.dpvae.figures.systems import Subjects, title_of
from pyro_dpvae.evaluation import Subject
from pyro_dpvae.metrics import Estimate, leakage_curve
from pyro_dpvae.plots.leakage import AXES, draw_leakage

__all__ = ["leakage_with_and_without"]

_THRESHOLDS = 25
_TAIL = 0.001  # of the draws of q(z), at either end of the thresholds
_LEGEND = {False: "standard normal prior", True: "decoupled prior"}


def leakage_with_and_without(subjects: Subjects) -> Figure:
    """Return figure 4: a panel for each regularizer, a curve for each of its two priors.

    The score is E_q[(log q(z) - log p(z)) 1{log p0(g(z)) < tau}], the unconditional form of
    :func:`~pyro_dpvae.metrics.leakage_curve` in generation space, where the paper takes the
    density, with bands of two standard errors over the draws of q(z). The thresholds are 25 from
    the least to the largest log p0(g(z)) that draws of both systems
    reach, but for 1 draw in 1,000; which ones the paper takes is unknown.

    Args:
        subjects: the runs, two for each regularizer.

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs, figure 4.
    """
    panels: dict[str, dict[str, list[Estimate]]] = {}
    for regularizer in dict.fromkeys(key.regularizer for key in subjects):
        pair = {key: one for key, one in subjects.items() if key.regularizer == regularizer}
        ends = torch.stack([_ends(subject) for subject in pair.values()])
        low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
        thresholds = torch.linspace(low, high, _THRESHOLDS).tolist()
        panels[title_of(next(iter(pair)))] = {
            _LEGEND[key.decoupled]: leakage_curve(
                subject.prior,
                subject.aggregate,
                thresholds=thresholds,
                num_samples=subject.config.latent_samples,
                space="generation",
            )
            for key, subject in pair.items()
        }
    return _panels(panels)


def _ends(subject: Subject) -> Tensor:
    """Return between which log p0(g(z)) all but the tails of draws of q(z) lie, of shape (2,)."""
    z = subject.aggregate.sample((subject.config.latent_samples,))
    log_p = subject.prior.base().log_prob(subject.prior.to_generation(z)[0])
    return log_p.quantile(log_p.new_tensor([_TAIL, 1 - _TAIL])).cpu()


def _panels(panels: Mapping[str, Mapping[str, Sequence[Estimate]]]) -> Figure:
    """Return a figure with a panel of leakage scores for each title.

    Args:
        panels: by title of the panel, curves by title, the same titles in each.
    """
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(3.6 * columns, 2.9 * rows + 0.4), layout="constrained")
    table = figure.subplots(rows, columns, squeeze=False)
    for axes, (title, curves) in zip(table.flat, panels.items(), strict=False):
        draw_leakage(axes, curves)
        axes.set_title(title, fontsize=12)
        axes.tick_params(labelsize=8)
    for axes in table.flat[len(panels) :]:
        axes.remove()
    figure.supxlabel(r"threshold $\tau$ on $\log p_0(g(z))$ (nats)", fontsize=11)
    figure.supylabel(AXES[1], fontsize=11)
    handles, labels = table[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=columns, frameon=False, fontsize=11
    )
    return figure
