"""From names and options to a system: a model, a guide and an objective that fit together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyro_dpvae._checks import check_choice
from pyro_dpvae.decoders import Decoder
from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.guides import AmortizedGaussian
from pyro_dpvae.likelihoods import LIKELIHOODS
from pyro_dpvae.models import VAE
from pyro_dpvae.nn import ARCHITECTURES, default_architecture
from pyro_dpvae.objectives import ELBO, OBJECTIVES
from pyro_dpvae.priors import PRIORS

__all__ = ["GUIDES", "Part", "System", "build_system"]

GUIDES = {"amortized": AmortizedGaussian}
"""The guides by the names of the command line."""

Part = Mapping[str, Any]
"""A part by name, with its options: ``{"name": "coupling", "blocks": 6}``."""


@dataclass(frozen=True)
class System:
    """A model p(x, z), a guide q(z | x), and the objective that fits them."""

    model: VAE
    guide: AmortizedGaussian
    objective: ELBO


def build_system(
    shape: Sequence[int],
    *,
    latent_dim: int,
    prior: Part,
    likelihood: Part,
    network: Part,
    guide: Part,
    objective: Part,
) -> System:
    """Build a system for data of a shape.

    Args:
        shape: of a datum, (channels, height, width) or (size,).
        latent_dim: the size of z.
        prior: one of ``PRIORS``.
        likelihood: one of ``LIKELIHOODS``.
        network: one of ``ARCHITECTURES``, or ``auto`` for the one that suits the shape.
        guide: one of ``GUIDES``.
        objective: one of ``OBJECTIVES``.

    Raises:
        ValueError: for an unknown name, or parts that do not fit the shape or each other.

    Example:
        >>> system = build_system(
        ...     (2,),
        ...     latent_dim=2,
        ...     prior={"name": "coupling", "blocks": 4},
        ...     likelihood={"name": "gaussian", "variance": 0.01},
        ...     network={"name": "auto"},
        ...     guide={"name": "amortized"},
        ...     objective={"name": "beta", "beta": 4.0},
        ... )
        >>> system.model.prior.blocks
        4
    """
    shape = tuple(shape)
    network_name, network_options = _named("network", network, {"auto": None, **ARCHITECTURES})
    if network_name == "auto":
        network_name = default_architecture(shape)
    architecture = ARCHITECTURES[network_name]
    guide_name, guide_options = _named("guide", guide, GUIDES)
    likelihood_name, likelihood_options = _named("likelihood", likelihood, LIKELIHOODS)
    prior_name, prior_options = _named("prior", prior, PRIORS)
    objective_name, objective_options = _named("objective", objective, OBJECTIVES)

    p_z = PRIORS[prior_name](latent_dim, **prior_options)
    p_x = LIKELIHOODS[likelihood_name](shape, **likelihood_options)
    decoder = Decoder(architecture.decoder(latent_dim, p_x.raw_shape, **network_options), p_x)
    encoder = GaussianEncoder(architecture.encoder(shape, 2 * latent_dim, **network_options))
    return System(
        VAE(p_z, decoder),
        GUIDES[guide_name](encoder, **guide_options),
        OBJECTIVES[objective_name](**objective_options),
    )


def _named(kind: str, part: Part, choices: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    options = dict(part)
    return check_choice(kind, options.pop("name", ""), choices), options
