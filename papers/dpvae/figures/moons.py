"""Figures 1 and 3: pockets and leaks on two moons."""

from matplotlib.figure import Figure
from torch import Tensor

from papers.dpvae.figures.systems import Subjects, decoded, title_of
from pyro_dpvae.metrics import high_posterior_samples, low_posterior_samples
from pyro_dpvae.plots import Clouds, clouds_figure, moons_figure
from pyro_dpvae.recipes import measure_moons

__all__ = ["pockets_and_leaks", "with_and_without"]

_SHOWN, _CLOUD = 1000, 2000  # prior samples; points of the aggregate posterior
_EXTREME, _SAMPLES = 250, 5000
_X, _Z = ("$x_1$", "$x_2$"), ("$z$[0]", "$z$[1]")


def with_and_without(subjects: Subjects) -> Figure:
    """Return figure 1: a system of two moons without and with the decoupled prior, a row each.

    The panels are those of :func:`~pyro_dpvae.plots.moons_figure`. Low-posterior samples are the
    250 of 5,000 prior samples of least q(z); how many the paper shows is unknown.

    Args:
        subjects: the two runs.

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs, figure 1.
    """
    return moons_figure(
        {
            title_of(key): measure_moons(
                subject.saved.system, subject.data, seed=subject.config.seed
            )
            for key, subject in subjects.items()
        }
    )


def pockets_and_leaks(subjects: Subjects) -> Figure:
    """Return figure 3: regularizers under N(0, I) on two moons, a column each.

    Its rows are (a) decoded prior samples over the data; (b) the aggregate posterior with its
    pockets and leaks in latent space; (c) low-posterior samples, decoded; (d) high-posterior
    samples, decoded. These are the 250 of 5,000 samples of p(z) of least q(z), and of q(z) of
    least p0(g(z)), which under N(0, I) is p(z).

    Args:
        subjects: the runs.

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs, figure 3, whose parts (a) to (c) the text names;
        (d) is ours.
    """
    low, high = "low-posterior samples (pockets)", "high-posterior samples (leaks)"
    rows: dict[str, dict[str, Clouds]] = {
        "(a) prior samples,\ndecoded": {},
        "(b) latent space": {},
        "(c) low-posterior,\ndecoded": {},
        "(d) high-posterior,\ndecoded": {},
    }
    generated, latent, from_pockets, from_leaks = rows.values()
    counts = {"num_samples": _SAMPLES, "keep": _EXTREME}
    for key, subject in subjects.items():
        prior, aggregate = subject.prior, subject.aggregate
        data = subject.data.train
        assert isinstance(data, Tensor)  # two moons are held in memory
        z_low = low_posterior_samples(prior, aggregate, **counts)
        z_high = high_posterior_samples(prior, aggregate, space="generation", **counts)
        title = title_of(key)
        x = decoded(subject, prior().sample((_SHOWN,)))
        generated[title] = Clouds({"data": data, "prior samples": x}, _X)
        latent[title] = Clouds(
            {"aggregate posterior": aggregate.sample((_CLOUD,)), low: z_low, high: z_high}, _Z
        )
        from_pockets[title] = Clouds({"data": data, low: decoded(subject, z_low)}, _X)
        from_leaks[title] = Clouds({"data": data, high: decoded(subject, z_high)}, _X)
    return clouds_figure(rows)
