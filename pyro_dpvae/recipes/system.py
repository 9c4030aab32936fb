"""``build_system``: a model, a guide and an objective that fit together, from their names."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, cast

import torch
from torch import Tensor

from pyro_dpvae._checks import check_choice
from pyro_dpvae._randomness import forked_rng, seed_of
from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.errors import ConfigError, UnsupportedError
from pyro_dpvae.guides import AbstractGuide
from pyro_dpvae.likelihoods import AbstractLikelihood
from pyro_dpvae.models import AbstractVAE
from pyro_dpvae.nn import has_weight_norm, started_from_data
from pyro_dpvae.objectives import SCHEDULES, RegularizedELBO
from pyro_dpvae.priors import AbstractPrior, VampPrior
from pyro_dpvae.recipes.guides import build_guide
from pyro_dpvae.recipes.models import MODELS, BuiltModel, ModelParts, own_model
from pyro_dpvae.recipes.networks import supply
from pyro_dpvae.recipes.parts import Part, as_mapping, builder_of

__all__ = ["System", "build_system", "start_from_data"]

_DATA_OF_SCALES = 1000
_DATA_OF_WEIGHTS = 500


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
    model: Part = "vae",
    pixels: Part = "auto",
) -> System:
    """Build a system for data of a shape.

    Each part is a short name, the dotted path of a class or function, or a mapping of that and
    its options: ``{"name": "coupling", "blocks": 6}``.

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

    The weights of a prior depend on the random seed alone, whatever was drawn since: set another
    seed for each of several systems, such as ``pyro.set_rng_seed(1)``.

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
    build_likelihood, likelihood_options = _builder("likelihood", likelihood)
    parts = ModelParts(
        shape=shape,
        latent_dim=latent_dim,
        prior=partial(_build_prior, prior, count()),
        likelihood=supply(build_likelihood, likelihood_options, shape=shape),
        network=_named("network", network),
        pixels=_named("pixels", pixels),
    )
    name, options, own = _named("model", model)
    if name != "lossy" and parts.pixels[0] != "auto":
        raise UnsupportedError(
            "pixel networks are part of a lossy model, "
            f"got pixels {parts.pixels[0]!r} for another; use model lossy, or pixels auto"
        )
    built = own_model(own, options, parts) if own else MODELS[name](parts, **options)
    sizes = {"latent_dim": built.model.prior.latent_dim, "dataset_size": dataset_size}
    return System(built.model, _build_guide(guide, built), _build_objective(objective, sizes))


def start_from_data(system: System, batches: Iterable[Tensor]) -> None:
    """Start some parameters of a system from data.

    These are the pseudo-inputs of a vamp prior, the learned scale of a likelihood, and layers of
    the decoder with normalised weights.

    Args:
        system: before training.
        batches: tensors of shape (batch, *data); only as many as needed are read.

    Raises:
        ValueError: if there are too few data, or they lie outside the bounds of pseudo-inputs.
    """
    prior = system.model.prior
    likelihood = cast(AbstractLikelihood, system.model.decoder.likelihood)
    starts = type(likelihood).start_at is not AbstractLikelihood.start_at
    normalized = has_weight_norm(system.model.decoder)
    wanted = max(_DATA_OF_SCALES if starts else 0, _DATA_OF_WEIGHTS if normalized else 0)
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
    if normalized:
        x = torch.cat(taken)[:_DATA_OF_WEIGHTS]
        decoder = system.model.decoder
        with torch.no_grad(), started_from_data(decoder), forked_rng(torch.initial_seed()):
            decoder(system.guide.posterior(x).sample()).log_prob(x)


def _build_prior(
    part: Part, numbers: Iterator[int], size: int, encoder: Callable[[], GaussianEncoder] | None
) -> AbstractPrior:
    build, options = _builder("prior", part)
    if "encoder" not in inspect.signature(build).parameters:
        # With a random seed of its own, so that under one seed the networks start with the same
        # weights, and the guide draws the same noise, whatever the prior is.
        with forked_rng(seed_of(torch.initial_seed(), next(numbers))):
            return cast(AbstractPrior, supply(build, options, latent_dim=size))
    if encoder is None:
        raise UnsupportedError(
            f"a {as_mapping('prior', part)['name']} prior takes the encoder of the whole z, and "
            "layers of a ladder have none of their own; use another prior, or, for model ladder, "
            "one over all layers with model.joint"
        )
    return cast(AbstractPrior, supply(build, options, latent_dim=size, encoder=encoder()))


def _build_guide(part: Part, built: BuiltModel) -> AbstractGuide:
    build, options = _builder("guide", part)
    name = as_mapping("guide", part)["name"]
    if built.guide is None:
        prior, guide = built.model.prior, build_guide(build, options, built.parts)
        if isinstance(prior, VampPrior) and prior.encoder not in list(guide.modules()):
            raise UnsupportedError(
                "a vamp prior shares the encoder of the guide, and the guide has none of single "
                f"normals, got guide {name!r}; use amortized, laplace or semi-amortized"
            )
        return guide
    if name != "amortized":
        raise UnsupportedError(
            "latents at several sites have the guide amortized, "
            f"got {name!r} for {type(built.model).__name__}; use it, or, for a ladder, one prior "
            "over all layers with model.joint"
        )
    return built.guide


def _build_objective(part: Part, sizes: Mapping[str, int]) -> RegularizedELBO:
    build, options = _builder("objective", part)
    for weight, schedule in (options.pop("schedule", None) or {}).items():
        named = {"name": "constant"} if schedule is None else dict(schedule)
        name = check_choice(
            f"the schedule of {weight}", named.pop("name", ""), ["constant", *SCHEDULES]
        )
        if weight not in options:
            raise ConfigError(
                f"a schedule needs the weight that it ends at, got none for {weight!r}; "
                f"give {weight} beside schedule.{weight}"
            )
        if name != "constant":
            # The schedule ends at the weight's own value.
            options[weight] = SCHEDULES[name](end=options[weight], **named)
    return cast(RegularizedELBO, supply(build, options, **sizes))


def _builder(kind: str, part: Part) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the builder of a part, and its options."""
    options = as_mapping(kind, part)
    build = builder_of(kind, options.pop("name"))
    assert build is not None
    return build, options


def _named(kind: str, part: Part) -> tuple[str, dict[str, Any], Callable[..., Any] | None]:
    """Return the name of a part, its options, and its builder if it is a part of the user's."""
    options = as_mapping(kind, part)
    name = options.pop("name")
    build = builder_of(kind, name)
    return name, options, build if "." in name else None
