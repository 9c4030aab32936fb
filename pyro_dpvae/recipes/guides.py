"""Guides by name: each is built from the parts of a system, with the guide's own options."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch.nn.modules.batchnorm import _BatchNorm

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.decoders import AbstractDecoder, Decoder
from pyro_dpvae.encoders import GaussianEncoder, WeightedGaussianEncoder
from pyro_dpvae.errors import UnsupportedError
from pyro_dpvae.guides import (
    AbstractGuide,
    AmortizedGaussian,
    FlowGuide,
    LaplaceGuide,
    RecursiveMixtureGuide,
    SemiAmortizedGuide,
)
from pyro_dpvae.nn import Batched
from pyro_dpvae.priors import AbstractPrior

__all__ = ["GUIDES", "GuideParts"]


@dataclass(frozen=True)
class GuideParts:
    """What guides are built from.

    Attributes:
        network: builds a network x -> (batch, features).
        prior: p(z), that of the model.
        decoder: p(x | z), that of the model.
        encoder: returns the encoder x -> q(z | x), the same at every call; a prior may hold it.
    """

    network: Callable[[], Batched]
    prior: AbstractPrior
    decoder: AbstractDecoder
    encoder: Callable[[], GaussianEncoder]


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
    return FlowGuide(
        parts.network(),
        parts.decoder.latent_dim,
        kind=kind,
        context=context,
        blocks=blocks,
        hidden=hidden,
    )


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
        parts: of the system.
        steps: steps to the mode of the posterior.
        damping: by how much the first step is shortened, at least 0 and below 1.
        decay: step t is shortened by (t + 1)^decay as well.
        detached: whether the search is a constant to gradients.

    Raises:
        ValueError: if the decoder is not one of a network's raw values, or has batch norms, which
            training would use.
    """
    if not isinstance(parts.decoder, Decoder):
        raise UnsupportedError(
            "a Laplace guide expands the likelihood of a network's raw values, which "
            f"{type(parts.decoder).__name__} does not give; use --guide amortized"
        )
    if any(isinstance(module, _BatchNorm) for module in parts.decoder.modules()):
        raise UnsupportedError(
            "a Laplace guide differentiates the decoder for each datum by itself, and the batch "
            "norms of this one join the data of a batch in training; choose a network without, "
            "such as --network residual or --network mlp, or, for a ladder, another guide"
        )
    return LaplaceGuide(
        parts.encoder(),
        parts.decoder,
        prior=parts.prior,
        steps=steps,
        damping=damping,
        decay=decay,
        detached=detached,
    )


def _recursive_mixture(
    parts: GuideParts, *, components: int = 2, recursive: bool = True, start: str = "copy"
) -> AbstractGuide:
    """Build a mixture of encoders.

    Args:
        parts: of the system.
        components: how many encoders, each with a network of its own.
        recursive: whether they are added one at a time in training, or all are there at once.
        start: from what an added one starts: copy, the last one with noise, or trunk, its layers
            but the last, which finds other modes of the posterior.
    """
    check_positive_int("components", components)
    size = parts.decoder.latent_dim
    encoders = [WeightedGaussianEncoder(parts.network(), size) for _ in range(components)]
    return RecursiveMixtureGuide(encoders, active=1 if recursive else components, start=start)


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
    "laplace": _laplace,
    "recursive-mixture": _recursive_mixture,
    "semi-amortized": _semi_amortized,
}
"""The guides by the names of the command line: functions of the parts and of options."""
