"""Guides by name: each is built from the parts of a system, with the guide's own options."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

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
from pyro_dpvae.recipes.networks import supply

__all__ = ["GUIDES", "GuideParts", "build_guide"]


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


def build_guide(
    build: Callable[..., AbstractGuide], options: Mapping[str, Any], parts: GuideParts
) -> AbstractGuide:
    """Build a guide with its options, and with those of the parts that its builder names.

    Raises:
        ValueError: if a Laplace guide gets a decoder other than one of a network's raw values, or
            one with batch norms, which training would use.
    """
    decoder = parts.decoder
    if build is LaplaceGuide and not isinstance(decoder, Decoder):
        raise UnsupportedError(
            "a Laplace guide expands the likelihood of a network's raw values, which "
            f"{type(decoder).__name__} does not give; use --guide amortized"
        )
    if build is LaplaceGuide and any(isinstance(one, _BatchNorm) for one in decoder.modules()):
        raise UnsupportedError(
            "a Laplace guide differentiates the decoder for each datum by itself, and the batch "
            "norms of this one join the data of a batch in training; choose a network without, "
            "such as --network residual or --network mlp, or, for a ladder, another guide"
        )
    accepted = inspect.signature(build).parameters
    guide: AbstractGuide = supply(
        build,
        options,
        parts=parts,
        encoder=parts.encoder() if "encoder" in accepted else None,
        network=parts.network() if "network" in accepted else None,
        prior=parts.prior,
        decoder=decoder,
        latent_dim=decoder.latent_dim,
    )
    return guide


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


GUIDES: dict[str, Callable[..., AbstractGuide]] = {
    "amortized": AmortizedGaussian,
    "flow": FlowGuide,
    "laplace": LaplaceGuide,
    "recursive-mixture": _recursive_mixture,
    "semi-amortized": SemiAmortizedGuide,
}
"""The guides by the names of the command line: classes, or functions of the parts and options."""
