"""Figure 5: samples of the prior and of its pockets."""

from matplotlib.figure import Figure
from torch import Tensor

from pyro_dpvae.plots import samples_table
from pyro_dpvae.reproduction.figures.systems import Subjects, decoded, title_of

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
    return samples_table(rows)
