"""The table of priors by name."""

from collections.abc import Callable, Sequence

from pyro_dpvae.nn.activations import Activation
from pyro_dpvae.priors._base import AbstractPrior, StandardNormal
from pyro_dpvae.priors.coupling import CouplingPrior
from pyro_dpvae.priors.flow import AutoregressivePrior
from pyro_dpvae.priors.mixture import MixturePrior
from pyro_dpvae.priors.resampled import ResampledPrior

__all__ = ["PRIORS", "coupling_over_mixture"]


def coupling_over_mixture(
    latent_dim: int,
    *,
    blocks: int = 6,
    hidden: Sequence[int] = (64, 64),
    activation: Activation = "silu",
    components: int = 10,
    uniform: bool = False,
    spread: int | float = 1.0,
) -> CouplingPrior:
    """Return a ``CouplingPrior`` with a ``MixturePrior`` over generation space.

    Args:
        latent_dim: size L of z, at least 2.
        blocks: number of couplings.
        hidden: widths of the hidden layers of their networks.
        activation: activation of these hidden layers.
        components: number of components of the mixture.
        uniform: keep p(y) uniform.
        spread: standard deviation of the mixture's initial means.

    Example:
        >>> coupling_over_mixture(2, components=4).cluster_prior().probs.shape
        torch.Size([4])
    """
    base = MixturePrior(latent_dim, components=components, uniform=uniform, spread=spread)
    return CouplingPrior(
        latent_dim, blocks=blocks, hidden=hidden, activation=activation, base=base
    )


PRIORS: dict[str, Callable[..., AbstractPrior]] = {
    "autoregressive": AutoregressivePrior,
    "coupling": CouplingPrior,
    "coupling-mixture": coupling_over_mixture,
    "mixture": MixturePrior,
    "resampled": ResampledPrior,
    "standard": StandardNormal,
}
"""The priors by name, except ``VampPrior`` (it needs the guide's encoder) and ``ZukoPrior``."""
