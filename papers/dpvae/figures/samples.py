"""Figure 5: samples of the prior and of its pockets."""

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from papers.dpvae.figures.systems import Subjects, decoded, title_of
from pyro_dpvae.plots.samples import draw_samples

__all__ = ["samples_with_and_without"]

_COUNT = 36
_OF_PRIOR = {False: "standard normal", True: "decoupled"}


def samples_with_and_without(subjects: Subjects) -> Figure:
    """Return figure 5: decoded prior and low-posterior samples, a row for each regularizer.

    The first two columns are of N(0, I), the others of the decoupled prior. Each panel has 36
    samples, unselected. The low-posterior samples are the fifth of prior samples of least q(z),
    as in the authors' code for MNIST.

    Args:
        subjects: the runs, two for each regularizer; data are images.

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs, figure 5.
    """
    rows: dict[str, dict[str, Tensor]] = {}
    for key, subject in sorted(subjects.items(), key=lambda item: item[0].decoupled):
        plain, kind = title_of(key._replace(decoupled=False)), _OF_PRIOR[key.decoupled]
        drawn = rows.setdefault(plain, {})
        drawn[f"{kind} prior:\nsamples"] = decoded(subject, subject.prior().sample((_COUNT,)))
        drawn[f"{kind} prior:\nlow-posterior samples"] = decoded(
            subject, subject.low_posterior(_COUNT)
        )
    return _table(rows)


def _table(rows: Mapping[str, Mapping[str, Tensor]]) -> Figure:
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
