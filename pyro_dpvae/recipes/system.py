"""From names and options to a system: a model, a guide and an objective that fit together."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from pyro_dpvae._checks import check_choice
from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.guides import AbstractGuide
from pyro_dpvae.likelihoods import LIKELIHOODS, AbstractLikelihood
from pyro_dpvae.models import AbstractVAE
from pyro_dpvae.nn import ARCHITECTURES, LADDERS, PIXEL_NETWORKS
from pyro_dpvae.objectives import OBJECTIVES, SCHEDULES, RegularizedELBO
from pyro_dpvae.priors import AbstractPrior, VampPrior
from pyro_dpvae.recipes.guides import GUIDES
from pyro_dpvae.recipes.models import MODELS, BuiltModel, ModelParts
from pyro_dpvae.recipes.priors import SYSTEM_PRIORS

__all__ = ["Part", "System", "build_system", "start_from_data"]

Part = Mapping[str, Any]
"""A part by name, with its options: ``{"name": "coupling", "blocks": 6}``."""

_PLAIN: Part = {"name": "vae"}
_AUTO: Part = {"name": "auto"}
_DATA_OF_SCALES = 1000


@dataclass(frozen=True)
class System:
    """A model p(x, z), a guide q(z | x), and the objective that fits them."""

    model: AbstractVAE
    guide: AbstractGuide
    objective: RegularizedELBO


def build_system(
    shape: Sequence[int],
    *,
    latent_dim: int | None = None,
    dataset_size: int,
    prior: Part,
    likelihood: Part,
    network: Part,
    guide: Part,
    objective: Part,
    model: Part = _PLAIN,
    pixels: Part = _AUTO,
) -> System:
    """Build a system for data of a shape.

    Args:
        shape: of a datum, (channels, height, width) or (size,).
        latent_dim: the size of z; None takes 10, or the sum of a ladder's layers.
        dataset_size: the number of training data, which estimates of q(z) need.
        prior: one of ``SYSTEM_PRIORS``; each layer of a ladder has its own.
        likelihood: one of ``LIKELIHOODS``.
        network: one of ``ARCHITECTURES``, or of ``LADDERS`` for a ladder, or ``auto`` for the one
            that suits the shape.
        guide: one of ``GUIDES``.
        objective: one of ``OBJECTIVES``; ``schedule`` in it maps weights to schedules, which end
            at the weight's own value: ``{"name": "beta", "beta": 4.0, "schedule": {"beta":
            {"name": "linear", "start": 0.0, "steps": 1000}}}``.
        model: one of ``MODELS``.
        pixels: one of ``PIXEL_NETWORKS`` for a lossy model, or ``auto`` for the one that suits the
            shape.

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
    guide_name, guide_options = _named("guide", guide, GUIDES)
    likelihood_name, likelihood_options = _named("likelihood", likelihood, LIKELIHOODS)
    prior_name, prior_options = _named("prior", prior, SYSTEM_PRIORS)
    model_name, model_options = _named("model", model, MODELS)
    networks = {"auto": None, **ARCHITECTURES, **LADDERS}
    built = MODELS[model_name](
        ModelParts(
            shape=shape,
            latent_dim=latent_dim,
            prior=partial(_build_prior, prior_name, prior_options),
            likelihood=LIKELIHOODS[likelihood_name](shape, **likelihood_options),
            network=_named("network", network, networks),
            pixels=_named("pixels", pixels, {"auto": None, **PIXEL_NETWORKS}),
        ),
        **model_options,
    )
    p_z = built.model.prior
    sizes = {"latent_dim": p_z.latent_dim, "dataset_size": dataset_size}
    return System(
        built.model,
        _build_guide(guide_name, guide_options, built),
        _build_objective(objective, sizes),
    )


def start_from_data(system: System, batches: Iterable[Tensor]) -> None:
    """Move the parts of a system that start at data there.

    These are the pseudo-inputs of a vamp prior, and the learned scale of a likelihood.

    Args:
        system: before training.
        batches: tensors of shape (batch, *data), of which no more are taken than are needed.

    Raises:
        ValueError: if there are too few data, or they lie outside the bounds of pseudo-inputs.
    """
    prior = system.model.prior
    likelihood = cast(AbstractLikelihood, system.model.decoder.likelihood)
    starts = type(likelihood).start_at is not AbstractLikelihood.start_at
    wanted = _DATA_OF_SCALES if starts else 0
    if isinstance(prior, VampPrior):
        wanted = max(wanted, prior.components)
    taken: list[Tensor] = []
    for x in batches if wanted else ():
        taken.append(x)
        if sum(map(len, taken)) >= wanted:
            break
    if starts:
        likelihood.start_at(torch.cat(taken))
    if isinstance(prior, VampPrior):
        try:
            prior.start_at(torch.cat(taken))
        except ValueError as error:
            raise ValueError(f"{error} (here by prior.components and prior.bounded)") from error


def _build_prior(
    name: str, options: Mapping[str, Any], size: int, encoder: Callable[[], GaussianEncoder] | None
) -> AbstractPrior:
    build = SYSTEM_PRIORS[name]
    if "encoder" not in inspect.signature(build).parameters:
        return build(size, **options)
    if encoder is None:
        raise ValueError(
            f"a {name} prior takes the encoder of the whole z, and layers of a ladder have none "
            "of their own; use another prior, or, for model ladder, one over all layers with "
            "model.joint"
        )
    return build(encoder(), **options)


def _build_guide(name: str, options: Mapping[str, Any], built: BuiltModel) -> AbstractGuide:
    if built.guide is None:
        guide = GUIDES[name](built.parts, **options)
        _check_shared(built.model.prior, guide, name)
        return guide
    if name != "amortized":
        raise ValueError(
            "latents at several sites have the guide amortized, "
            f"got {name!r} for {type(built.model).__name__}; use it, or, for a ladder, one prior "
            "over all layers with model.joint"
        )
    return built.guide


def _check_shared(prior: AbstractPrior, guide: AbstractGuide, name: str) -> None:
    if isinstance(prior, VampPrior) and prior.encoder not in list(guide.modules()):
        raise ValueError(
            "a vamp prior shares the encoder of the guide, and the guide has none of single "
            f"normals, got guide {name!r}; use amortized, laplace or semi-amortized"
        )


def _build_objective(part: Part, sizes: Mapping[str, int]) -> RegularizedELBO:
    name, options = _named("objective", part, OBJECTIVES)
    for weight, schedule in (options.pop("schedule", None) or {}).items():
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
