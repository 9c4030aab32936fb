"""From names and options to a system: a model, a guide and an objective that fit together."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pyro_dpvae._checks import check_choice
from pyro_dpvae.decoders import Decoder
from pyro_dpvae.guides import AbstractGuide
from pyro_dpvae.likelihoods import LIKELIHOODS
from pyro_dpvae.models import VAE, AbstractVAE
from pyro_dpvae.nn import ARCHITECTURES, default_architecture
from pyro_dpvae.objectives import ELBO, OBJECTIVES, SCHEDULES
from pyro_dpvae.priors import PRIORS
from pyro_dpvae.recipes.guides import GUIDES, GuideParts

__all__ = ["Part", "System", "build_system"]

Part = Mapping[str, Any]
"""A part by name, with its options: ``{"name": "coupling", "blocks": 6}``."""


@dataclass(frozen=True)
class System:
    """A model p(x, z), a guide q(z | x), and the objective that fits them."""

    model: AbstractVAE
    guide: AbstractGuide
    objective: ELBO


def build_system(
    shape: Sequence[int],
    *,
    latent_dim: int,
    dataset_size: int,
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
        dataset_size: the number of training data, which estimates of q(z) need.
        prior: one of ``PRIORS``.
        likelihood: one of ``LIKELIHOODS``.
        network: one of ``ARCHITECTURES``, or ``auto`` for the one that suits the shape.
        guide: one of ``GUIDES``.
        objective: one of ``OBJECTIVES``; ``schedule`` in it maps weights to schedules, which end
            at the weight's own value: ``{"name": "beta", "beta": 4.0, "schedule": {"beta":
            {"name": "linear", "start": 0.0, "steps": 1000}}}``.

    Raises:
        ValueError: for an unknown name, or parts that do not fit the shape or each other.

    Example:
        >>> system = build_system(
        ...     (2,),
        ...     latent_dim=2,
        ...     dataset_size=1000,
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
    sizes = {"latent_dim": latent_dim, "dataset_size": dataset_size}

    p_z = PRIORS[prior_name](latent_dim, **prior_options)
    p_x = LIKELIHOODS[likelihood_name](shape, **likelihood_options)
    decoder = Decoder(architecture.decoder(latent_dim, p_x.raw_shape, **network_options), p_x)
    parts = GuideParts(
        network=partial(architecture.encoder, shape, **network_options),
        prior=p_z,
        decoder=decoder,
    )
    return System(
        VAE(p_z, decoder),
        GUIDES[guide_name](parts, **guide_options),
        _build_objective(objective, sizes),
    )


def _build_objective(part: Part, sizes: Mapping[str, int]) -> ELBO:
    name, options = _named("objective", part, OBJECTIVES)
    for weight, schedule in options.pop("schedule", {}).items():
        schedule_name, schedule_options = _named(
            f"the schedule of {weight}", schedule, {"constant": None, **SCHEDULES}
        )
        if weight not in options:
            raise ValueError(
                f"a schedule needs the weight that it ends at, got none for {weight!r}; "
                f"give {weight} beside schedule.{weight}"
            )
        if schedule_name != "constant":
            # Schedules are named by where they go: their end is the weight itself.
            options[weight] = SCHEDULES[schedule_name](end=options[weight], **schedule_options)
    accepted = inspect.signature(OBJECTIVES[name]).parameters
    options |= {size: value for size, value in sizes.items() if size in accepted}
    return OBJECTIVES[name](**options)


def _named(kind: str, part: Part, choices: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    options = dict(part)
    return check_choice(kind, options.pop("name", ""), choices), options
