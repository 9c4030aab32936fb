"""Guides by name: each is built from the parts of a system, with the guide's own options."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.decoders import Decoder
from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.guides import AbstractGuide, AmortizedGaussian, FlowGuide, SemiAmortizedGuide
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


def _flow(
    parts: GuideParts,
    *,
    kind: str = "iaf",
    blocks: int = 4,
    hidden: Sequence[int] = (128, 128),
    context: int = 64,
) -> AbstractGuide:
    """Build a flow guide.

    Args:
        parts: of the system.
        kind: iaf (inverse autoregressive) or coupling.
        blocks: the number of steps.
        hidden: widths of the hidden layers in each step's network.
        context: the number of features of the datum that steps see.
    """
    size = parts.decoder.latent_dim
    network = parts.network(2 * size + check_positive_int("context", context))
    return FlowGuide(network, latent_dim=size, kind=kind, blocks=blocks, hidden=hidden)


def _semi_amortized(
    parts: GuideParts,
    *,
    steps: int = 4,
    learning_rate: int | float = 0.03,
    max_norm: int | float | None = 5.0,
    detached: bool = False,
) -> AbstractGuide:
    """Build a semi-amortized guide.

    Args:
        parts: of the system.
        steps: the number of refinements of the encoder's posterior.
        learning_rate: of the refinements.
        max_norm: to which a datum's gradient is shortened; null takes it as it is.
        detached: whether training takes the refinements as constants.
    """
    return SemiAmortizedGuide(
        parts.encoder(),
        parts.decoder,
        prior=parts.prior,
        steps=steps,
        learning_rate=learning_rate,
        max_norm=max_norm,
        detached=detached,
    )


GUIDES: dict[str, Callable[..., AbstractGuide]] = {
    "amortized": _amortized,
    "flow": _flow,
    "semi-amortized": _semi_amortized,
}
"""The guides by the names of the command line: functions of the parts and of options."""
