"""Guides by name: each is built from the parts of a system, with the guide's own options."""

from collections.abc import Callable
from dataclasses import dataclass

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.decoders import Decoder
from pyro_dpvae.encoders import GaussianEncoder, WeightedGaussianEncoder
from pyro_dpvae.guides import AbstractGuide, AmortizedGaussian, RecursiveMixtureGuide
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


def _recursive_mixture(
    parts: GuideParts, *, components: int = 2, recursive: bool = True
) -> AbstractGuide:
    """Build a mixture of encoders.

    Args:
        parts: of the system.
        components: how many encoders, each with a network of its own.
        recursive: whether they are added one at a time in training, or all are there at once.
    """
    check_positive_int("components", components)
    features = 2 * parts.decoder.latent_dim + 1
    encoders = [WeightedGaussianEncoder(parts.network(features)) for _ in range(components)]
    return RecursiveMixtureGuide(encoders, active=1 if recursive else components)


GUIDES: dict[str, Callable[..., AbstractGuide]] = {
    "amortized": _amortized,
    "recursive-mixture": _recursive_mixture,
}
"""The guides by the names of the command line: functions of the parts and of options."""
