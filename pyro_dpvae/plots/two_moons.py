"""The paper's first figure: pockets of a regularized VAE on two moons, and their absence."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from pyro_dpvae.metrics import Estimate
from pyro_dpvae.plots.clouds import Clouds, clouds_figure
from pyro_dpvae.recipes.two_moons import MoonsResult

__all__ = ["moons_figure"]

_CAPTION = (
    "Red: the 5 % of prior samples with the lowest q(z). Every prior has them, so some lie "
    "between the moons in both rows;\ncompare how far from the data samples decode "
    "(mean distance ± 2 standard errors)."
)
_X, _Z, _Z0 = ("$x_1$", "$x_2$"), ("$z$[0]", "$z$[1]"), ("$z_0$[0]", "$z_0$[1]")


def moons_figure(results: Mapping[str, MoonsResult], *, shown: int = 1000) -> Figure:
    """Return a figure with a row of four panels for each system.

    The panels are, after figures 1 and 3 of Bhalodia, Lee, Elhabian (2020): decoded prior samples
    over the data; aggregate posterior, prior samples and low-posterior samples in representation
    space; the same in generation space; decoded low-posterior samples over the data.

    Args:
        results: the systems by title.
        shown: how many prior samples are drawn.
    """
    prior, low = "prior samples", "low-posterior samples (pockets)"
    rows = {}
    for title, one in results.items():
        z = {"aggregate posterior": one.z_data, prior: one.z[:shown], low: one.z_low}
        z0 = {"aggregate posterior": one.z0_data, prior: one.z0[:shown], low: one.z0_low}
        x, x_low = {"data": one.data, prior: one.x[:shown]}, {"data": one.data, low: one.x_low}
        rows[title] = {
            "prior samples, decoded": Clouds(x, _X, _distance(one.prior_distance)),
            "representation space $z$": Clouds(z, _Z),
            "generation space $z_0$": Clouds(z0, _Z0),
            "low-posterior samples, decoded": Clouds(x_low, _X, _distance(one.low_distance)),
        }
    figure = clouds_figure(rows)
    figure.suptitle(_CAPTION, fontsize=10)
    return figure


def _distance(estimate: Estimate) -> str:
    return f"mean distance to data {estimate.value:.3f} ± {2 * estimate.standard_error:.3f}"
