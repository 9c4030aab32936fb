"""Models by name: each is built from the parts of a system, with the model's own options."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from torch import nn

from pyro_dpvae._checks import check_choice
from pyro_dpvae.decoders import AutoregressiveDecoder, Decoder
from pyro_dpvae.encoders import ClusteringEncoder, GaussianEncoder
from pyro_dpvae.errors import ConfigError, UnsupportedError
from pyro_dpvae.guides import AbstractGuide, ClusteringLadderGuide, LadderGuide
from pyro_dpvae.likelihoods import AbstractLikelihood
from pyro_dpvae.models import VAE, AbstractVAE, ClusteringLadderVAE, LadderVAE, LossyVAE
from pyro_dpvae.nn import (
    ARCHITECTURES,
    LADDERS,
    PIXEL_NETWORKS,
    Architecture,
    check_latent_dims,
    default_architecture,
    default_ladder,
)
from pyro_dpvae.priors import AbstractPrior
from pyro_dpvae.recipes.guides import GuideParts
from pyro_dpvae.recipes.networks import own_architecture, supply

__all__ = ["MODELS", "BuiltModel", "ModelParts", "own_model"]

_LATENT_DIM = 10


@dataclass(frozen=True)
class ModelParts:
    """What models are built from.

    Attributes:
        shape: of a datum.
        latent_dim: the size of z; None takes 10, or the sum of a ladder's layers.
        prior: builds p(z) of a size, with an encoder at hand for priors that take one.
        likelihood: of data of the shape.
        network: the name of the networks, or ``auto``, their options, and the builder of networks
            of the user's own.
        pixels: likewise of the pixel network.
    """

    shape: tuple[int, ...]
    latent_dim: int | None
    prior: Callable[[int, Callable[[], GaussianEncoder] | None], AbstractPrior]
    likelihood: AbstractLikelihood
    network: tuple[str, Mapping[str, Any], Callable[..., nn.Module] | None]
    pixels: tuple[str, Mapping[str, Any], Callable[..., nn.Module] | None]

    def architecture(self, kind: str, raw_shape: Sequence[int] | None = None) -> Architecture:
        """Return the networks of one kind of model, with their options.

        Args:
            kind: ``"vae"``, ``"lossy"`` or ``"ladder"``.
            raw_shape: what the decoder gives; None stands for what the likelihood takes.

        Raises:
            ValueError: if the networks are of another kind.
        """
        name, options, build = self.network
        if build is not None and kind != "ladder":
            return own_architecture(
                build,
                options,
                shape=self.shape,
                latent_dim=self.size,
                raw_shape=raw_shape or self.likelihood.raw_shape,
            )
        choices, usual = ARCHITECTURES, default_architecture
        if kind == "ladder":
            choices, usual = LADDERS, default_ladder
        if name == "auto":
            name = usual(self.shape)
        check_choice(f"network of a {kind} model", name, choices)
        chosen = choices[name]
        return Architecture(partial(chosen.encoder, **options), partial(chosen.decoder, **options))

    @property
    def size(self) -> int:
        """The size of z, of a model that is no ladder."""
        return _LATENT_DIM if self.latent_dim is None else self.latent_dim


@dataclass(frozen=True)
class BuiltModel:
    """A model and what its guide is built from.

    Attributes:
        model: p(x, z).
        parts: of its guide.
        guide: the guide itself, for a model whose latents lie at several sites.
    """

    model: AbstractVAE
    parts: GuideParts
    guide: AbstractGuide | None = None


def own_model(
    build: Callable[..., AbstractVAE], options: Mapping[str, Any], parts: ModelParts
) -> BuiltModel:
    """Build a model of a prior and a decoder, such as ``VAE`` or a class of the user's own.

    Args:
        build: ``build(prior, decoder, **options)``.
        options: of ``build``.
        parts: of the system.
    """
    shape, size = parts.shape, parts.size
    networks = parts.architecture("vae")
    network = partial(networks.encoder, shape)
    encoder = cache(lambda: GaussianEncoder(network(), size))
    prior = parts.prior(size, encoder)
    decoder = Decoder(networks.decoder(size, parts.likelihood.raw_shape), parts.likelihood)
    model = supply(build, options, prior=prior, decoder=decoder)
    return BuiltModel(model, GuideParts(network, prior, decoder, encoder))


def _vae(parts: ModelParts) -> BuiltModel:
    return own_model(VAE, {}, parts)


def _lossy(parts: ModelParts, *, channels: int = 4) -> BuiltModel:
    """Build a ``LossyVAE``.

    Args:
        parts: of the system.
        channels: of the map that z gives to the pixel network.
    """
    shape, size = parts.shape, parts.size
    if len(shape) != 3:
        raise UnsupportedError(
            f"a lossy model is one of images, got data of shape {shape}; use model vae"
        )
    features = (channels, *shape[1:])
    networks = parts.architecture("lossy", features)
    network = partial(networks.encoder, shape)
    encoder = cache(lambda: GaussianEncoder(network(), size))
    prior = parts.prior(size, encoder)
    name, options, own = parts.pixels
    if name == "auto":
        name = "masked" if shape[0] == 1 else "gated"
    build: Callable[..., Any] = own or PIXEL_NETWORKS[name]
    pixels = build(shape, channels, raw_shape=parts.likelihood.raw_shape, **options)
    network_of_z = networks.decoder(size, features)
    decoder = AutoregressiveDecoder(network_of_z, pixels, likelihood=parts.likelihood)
    return BuiltModel(LossyVAE(prior, decoder), GuideParts(network, prior, decoder, encoder))


def _ladder(parts: ModelParts, *, joint: bool = False) -> BuiltModel:
    """Build a ``LadderVAE``.

    Args:
        parts: of the system.
        joint: whether one prior is over all layers, instead of one over each.
    """
    latent_dims, networks = _ladder_networks(parts)
    size = sum(latent_dims)
    network = partial(networks.encoder, parts.shape)
    encoder = cache(lambda: GaussianEncoder(network(), size))
    decoder = Decoder(networks.decoder(size, parts.likelihood.raw_shape), parts.likelihood)
    if joint:
        prior = parts.prior(size, encoder)
        return BuiltModel(VAE(prior, decoder), GuideParts(network, prior, decoder, encoder))
    model = LadderVAE([parts.prior(size, None) for size in latent_dims], decoder)
    return BuiltModel(
        model,
        GuideParts(network, model.prior, decoder, encoder),
        LadderGuide(encoder(), latent_dims),
    )


def _clustering_ladder(parts: ModelParts, *, assignment: str = "network") -> BuiltModel:
    """Build a ``ClusteringLadderVAE``.

    Args:
        parts: of the system.
        assignment: how q(y) comes about: network, from each layer's tower, or posterior, the
            prior's p(y | z).
    """
    check_choice("assignment", assignment, ("network", "posterior"))
    latent_dims, networks = _ladder_networks(parts)
    size = sum(latent_dims)
    network = partial(networks.encoder, parts.shape)
    priors = [parts.prior(size, None) for size in latent_dims]
    clusters = [prior.cluster_prior().logits.shape[-1] for prior in priors]
    decoder = Decoder(networks.decoder(size, parts.likelihood.raw_shape), parts.likelihood)
    model = ClusteringLadderVAE(priors, decoder)
    encoder = cache(lambda: GaussianEncoder(network(), size))
    if assignment == "network":
        assigning = ClusteringEncoder(network(), latent_dims, clusters=clusters)
        guide = ClusteringLadderGuide(assigning, priors)
    else:
        guide = ClusteringLadderGuide(encoder(), priors)
    return BuiltModel(model, GuideParts(network, model.prior, decoder, encoder), guide)


def _ladder_networks(parts: ModelParts) -> tuple[tuple[int, ...], Architecture]:
    """Return the sizes of a ladder's layers, and its networks."""
    networks = parts.architecture("ladder")
    latent_dims = tuple(inspect.signature(networks.encoder).parameters["latent_dims"].default)
    check_latent_dims(latent_dims)
    if parts.latent_dim is not None and parts.latent_dim != sum(latent_dims):
        raise ConfigError(
            f"latent_dim of a ladder is the sum of its latent_dims {latent_dims}, got "
            f"{parts.latent_dim}; leave it out (null), or change the network's latent_dims"
        )
    return latent_dims, networks


MODELS: dict[str, Callable[..., BuiltModel]] = {
    "clustering-ladder": _clustering_ladder,
    "ladder": _ladder,
    "lossy": _lossy,
    "vae": _vae,
}
"""The models by the names of the command line: functions of the parts and of options."""
