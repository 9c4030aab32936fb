"""Figure 4: the leakage score against its threshold."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyro_dpvae.evaluation import Subject
from pyro_dpvae.metrics import Estimate, leakage_curve
from pyro_dpvae.plots import leakage_panels
from pyro_dpvae.reproduction.figures.systems import Subjects, title_of

__all__ = ["leakage_with_and_without"]

_THRESHOLDS = 25
_TAIL = 0.001  # of the draws of q(z), at either end of the thresholds
_LEGEND = {False: "standard normal prior", True: "decoupled prior"}


def leakage_with_and_without(subjects: Subjects) -> Figure:
    """Return figure 4: a panel for each regularizer, a curve for each of its two priors.

    The score is E_q[(log q(z) - log p(z)) 1{log p(z) < tau}], the unconditional form of
    :func:`~pyro_dpvae.metrics.leakage_curve`, with bands of two standard errors over the draws of
    q(z). The thresholds are 25 from the least to the largest log p(z) that draws of both systems
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
                samples=subject.config.latent_samples,
            )
            for key, subject in pair.items()
        }
    return leakage_panels(panels)


def _ends(subject: Subject) -> Tensor:
    """Return between which log p(z) all but the tails of draws of q(z) lie, of shape (2,)."""
    log_p = subject.prior().log_prob(subject.aggregate.sample((subject.config.latent_samples,)))
    return log_p.quantile(log_p.new_tensor([_TAIL, 1 - _TAIL])).cpu()
