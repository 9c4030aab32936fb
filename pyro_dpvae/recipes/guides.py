"""Guides by name: each is built from the parts of a system, with the guide's own options."""

from collections.abc import Callable
from dataclasses import dataclass

from pyro_dpvae.decoders import Decoder
from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.guides import AbstractGuide, AmortizedGaussian, LaplaceGuide
from pyro_dpvae.nn import Batched
from pyro_dpvae.priors import AbstractPrior

__all__ = ["GUIDES", "GuideParts"]


@dataclass(frozen=True)
class GuideParts:
    """What guides are built from.

    Attributes:
        network: builds a network x -> (batch, features) of a number of features.
        prior: p(z), that of the model.
        decoder: p(x | z), that of the model.
    """

    network: Callable[[int], Batched]
    prior: AbstractPrior
    decoder: Decoder

    def encoder(self) -> GaussianEncoder:
        """Return a new encoder."""
        return GaussianEncoder(self.network(2 * self.decoder.latent_dim))


def _amortized(parts: GuideParts) -> AbstractGuide:
    return AmortizedGaussian(parts.encoder())


def _laplace(
    parts: GuideParts,
    *,
    steps: int = 4,
    damping: float = 0.5,
    decay: float = 1.0,
    detached: bool = False,
) -> AbstractGuide:
    """Build a ``LaplaceGuide``.

    Args:
        parts: of the system
        steps: steps to the mode of the posterior
        damping: by how much the first step is shortened, at least 0 and below 1
        decay: step t is shortened by (t + 1)^decay as well
        detached: whether the search is a constant to gradients
    """
    return LaplaceGuide(
        parts.encoder(),
        parts.decoder,
        prior=parts.prior,
        steps=steps,
        damping=damping,
        decay=decay,
        detached=detached,
    )


GUIDES: dict[str, Callable[..., AbstractGuide]] = {"amortized": _amortized, "laplace": _laplace}
"""The guides by the names of the command line: functions of the parts and of options."""
