"""The parts of a system by a short name or a dotted path, and the options of each."""

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from typing import Any, get_type_hints

from torch import nn

from pyro_dpvae._checks import check_choice, nearest, plain_number
from pyro_dpvae.errors import ConfigError
from pyro_dpvae.guides import AbstractGuide
from pyro_dpvae.likelihoods import LIKELIHOODS, AbstractLikelihood
from pyro_dpvae.models import AbstractVAE
from pyro_dpvae.nn import ARCHITECTURES, LADDERS, PIXEL_NETWORKS, AbstractPixelNetwork
from pyro_dpvae.objectives import OBJECTIVES, SCHEDULES, AbstractSchedule, RegularizedELBO, Weight
from pyro_dpvae.priors import AbstractPrior
from pyro_dpvae.recipes.guides import GUIDES
from pyro_dpvae.recipes.models import MODELS
from pyro_dpvae.recipes.priors import SYSTEM_PRIORS

__all__ = [
    "KINDS",
    "RATE_SCHEDULE",
    "Part",
    "PartKind",
    "add_options",
    "as_mapping",
    "builder_of",
    "default_of",
    "option_hint",
    "resolved",
    "schedule_keys",
]

Part = str | Mapping[str, Any]
"""A name, or a mapping of a name and options, such as ``{"name": "coupling", "blocks": 4}``."""


@dataclass(frozen=True)
class PartKind:
    """A kind of part.

    Attributes:
        title: the kind in words.
        choices: the builders by short name; None stands for a builder that the data decide.
        default: the short name that is taken if none is given.
        base: the class of the parts, which a part of the user's own has as well.
    """

    title: str
    choices: Mapping[str, Callable[..., Any] | None]
    default: str
    base: type


KINDS: dict[str, PartKind] = {
    "model": PartKind("model p(x, z)", MODELS, "vae", AbstractVAE),
    "prior": PartKind("prior p(z)", SYSTEM_PRIORS, "coupling", AbstractPrior),
    "likelihood": PartKind(
        "likelihood p(x|z)", LIKELIHOODS, "gaussian-learned", AbstractLikelihood
    ),
    "network": PartKind(
        "networks of encoder and decoder (auto: those that suit the model and the data's shape)",
        {"auto": None, **{n: pair.encoder for n, pair in {**ARCHITECTURES, **LADDERS}.items()}},
        "auto",
        nn.Module,
    ),
    "pixels": PartKind(
        "pixel network of a lossy model (auto: the one that suits the data's shape)",
        {"auto": None, **PIXEL_NETWORKS},
        "auto",
        AbstractPixelNetwork,
    ),
    "guide": PartKind("guide q(z|x)", GUIDES, "amortized", AbstractGuide),
    "objective": PartKind("objective", OBJECTIVES, "elbo", RegularizedELBO),
}
"""The kinds of parts, in the order of the help."""

RATE_SCHEDULE = "learning_rate_schedule"
"""The option that says how the learning rate goes on, with a name and options as parts have."""

# The arguments of builders that a system supplies, and those that are functions or objects.
_SUPPLIED = frozenset(
    {"latent_dim", "dataset_size", "shape", "image_shape", "raw_shape", "features", "parts"}
    | {"encoder", "decoder", "network", "prior", "likelihood", "feature_channels", "in_shape"}
    | {"bound", "base", "rate", "penalties", "max_plate_nesting", "plate"}
)


def option_hint(option: str, known: Iterable[str]) -> str:
    """Return which parts have an unknown option; otherwise the one that may be meant, or nothing.

    Example:
        >>> option_hint("--objective.capacity", [])
        ' (capacity is an option of objective capacity)'
    """
    first, _, rest = option.removeprefix("--").partition(".")
    name = (rest or first).removeprefix("schedule.").partition(".")[0]
    owners = {
        kind: [one for one, builder in about.choices.items() if name in _arguments(builder)]
        for kind, about in KINDS.items()
    }
    kinds = [first] if owners.get(first) else [kind for kind in owners if owners[kind]]
    have = " and of ".join(f"{kind} {', '.join(owners[kind])}" for kind in kinds)
    return f" ({name} is an option of {have})" if have else nearest(option, known)


def _arguments(builder: Callable[..., Any] | None) -> set[str]:
    return {*inspect.signature(builder).parameters} - _SUPPLIED if builder else set()


def builder_of(kind: str, name: str) -> Callable[..., Any] | None:
    """Return the builder of a part.

    Args:
        kind: one of ``KINDS``.
        name: a short name, or the dotted path of a class or function such as
            ``my_project.nets.Tower``.

    Raises:
        ValueError: if there is no such name, or the path leads to nothing of the kind.
    """
    found = KINDS[kind]
    if "." in name:
        return _imported(kind, name)
    return found.choices[check_choice(kind, name, found.choices)]


@cache
def _imported(kind: str, path: str) -> Callable[..., Any]:
    """Return the class or function of a dotted path.

    A run folder names these paths, and may come from anywhere. So nothing is called that does
    not say that it makes a part: only classes of the kind, and functions annotated to return one.
    """
    base = KINDS[kind].base
    rule = (
        f"{kind} must be one of {', '.join(sorted(KINDS[kind].choices))}, or the dotted path of a "
        f"class of {base.__module__}.{base.__name__}, or of a function annotated to return one"
    )
    module, _, attribute = path.rpartition(".")
    try:
        loaded = import_module(module)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be imported ({error}); start Python where its package lies, or add "
            f"that folder to PYTHONPATH; {rule}"
        ) from error
    found = getattr(loaded, attribute, None)
    if found is None:
        there = [name for name, one in vars(loaded).items() if callable(one)]
        raise ConfigError(f"{module} has no {attribute}{nearest(attribute, there)}; {rule}")
    made = found if isinstance(found, type) else None
    if inspect.isfunction(found):
        made = get_type_hints(found).get("return")
    if not (isinstance(made, type) and issubclass(made, base)):
        what = f"is no subclass of {base.__module__}.{base.__name__}"
        if inspect.isfunction(found):
            declared = f"def {attribute}(...) -> {base.__name__}:"
            what = f"does not say that it returns a {base.__name__}; write '{declared}'"
        raise ConfigError(f"{path} {what}; {rule}")
    return found


def add_options(group: Any, kind: str, part: Mapping[str, Any]) -> None:
    """Add the name and the options of a part to a group of a parser, with schedules of weights.

    Args:
        group: of the parser.
        kind: one of ``KINDS``, or ``RATE_SCHEDULE``.
        part: its ``name``, and for an objective the names of schedules.
    """
    if kind == RATE_SCHEDULE:
        end = {"type": float, "default": 0.0, "help": "the learning rate at the schedule's end"}
        until = "the number of training steps until then (default: all of the run)"
        steps = {"type": int | None, "help": until}
        how = {"default": "constant", "help": "how the learning rate goes on"}
        _add_schedule(group, kind, part["name"], how=how, numbers={"end": end, "steps": steps})
        return
    about = KINDS[kind]
    group.add_argument(
        f"--{kind}.name",
        type=str,
        default=about.default,
        help=f"one of {', '.join(sorted(about.choices))}, or the path of a class of your own",
    )
    builder = builder_of(kind, part["name"])
    if builder is None:
        return
    weights = _weights(builder)
    add = group.add_class_arguments if isinstance(builder, type) else group.add_function_arguments
    untyped = _untyped(builder)
    skipped = {*_SUPPLIED, *weights, *untyped}
    add(builder, kind, as_group=False, fail_untyped=False, skip=skipped)
    for name in untyped:
        what = "an argument without type or default"
        group.add_argument(f"--{kind}.{name}", type=Any, required=True, help=what)
    for weight, default in weights.items():
        schedule = (part.get("schedule") or {}).get(weight) or {}
        _add_weight(group, kind, weight, default=default, name=schedule.get("name"))


def _add_weight(group: Any, kind: str, weight: str, *, default: Any, name: str | None) -> None:
    """Add a weight of an objective, and the options of its schedule; None is the usual one."""
    scheduled = isinstance(default, AbstractSchedule)
    group.add_argument(
        f"--{kind}.{weight}",
        type=float,
        default=default.end if scheduled else default,
        help="a weight, or its value at the end of its schedule",
    )
    usual = next((n for n, schedule in SCHEDULES.items() if schedule is type(default)), "constant")
    start, steps = (default.start, default.steps) if scheduled else (0.0, None)
    kinds = ", ".join(["constant", *SCHEDULES])
    until = "the number of training steps from the start to the end"
    numbers = {
        "start": {"type": float, "default": start, "help": "its value at step 0"},
        "steps": {"type": int, "default": steps, "required": steps is None, "help": until},
    }
    how = {"default": usual, "help": f"how the weight gets there: {kinds}"}
    _add_schedule(group, f"{kind}.schedule.{weight}", name or usual, how=how, numbers=numbers)


def _add_schedule(
    group: Any,
    key: str,
    name: str,
    *,
    how: Mapping[str, Any],
    numbers: Mapping[str, Mapping[str, Any]],
) -> None:
    """Add the name of a schedule and its options, of which ``numbers`` are all schedules'."""
    check_choice(key, name, ["constant", *SCHEDULES])
    group.add_argument(f"--{key}.name", type=str, **how)
    if name == "constant":
        return
    for number, about in numbers.items():
        group.add_argument(f"--{key}.{number}", **about)
    skip = {"start", "end", "steps"}
    group.add_class_arguments(SCHEDULES[name], key, as_group=False, skip=skip)


def _untyped(builder: Callable[..., Any]) -> list[str]:
    """Return the arguments of a builder with neither type nor default, which it still needs."""
    empty = inspect.Parameter.empty
    return [
        name
        for name, one in inspect.signature(builder).parameters.items()
        if name not in _SUPPLIED and one.annotation is empty and one.default is empty
        if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    ]


def resolved(kind: str, part: Part) -> dict[str, Any]:
    """Return a part with all its options, those that are not given at their defaults.

    Args:
        kind: one of ``KINDS``, or ``RATE_SCHEDULE``.
        part: its name, or a mapping of its name and options.

    Raises:
        ValueError: if there is no such name or option, or an option has a wrong value.

    Example:
        >>> resolved("prior", "coupling")
        {'name': 'coupling', 'blocks': 6, 'hidden': [64, 64], 'activation': 'silu'}
    """
    given = json.dumps(as_mapping(kind, part), default=partial(_as_json, kind))
    whole: dict[str, Any] = json.loads(_resolved(kind, given))
    return whole


def _as_json(kind: str, value: object) -> Any:
    number = plain_number(value)
    if number is value:
        raise ConfigError(
            f"options of {kind} must be numbers, texts, lists or mappings, got {value!r}; name a "
            "class or function of your own by its dotted path"
        )
    return number


def as_mapping(kind: str, part: object) -> dict[str, Any]:
    """Return a part as a mapping of its name and options.

    Raises:
        ValueError: if it is neither a name nor a mapping with one.
    """
    if isinstance(part, str):
        return {"name": part}
    found = {"name": default_of(kind), **part} if isinstance(part, Mapping) else {}
    if not isinstance(found.get("name"), str):
        raise ConfigError(
            f"{kind} must be a name, or a mapping of its name and options, got {part!r}; write "
            f"{kind}: {{name: {default_of(kind)}}}"
        )
    schedules = found.get("schedule") or {}
    if not (
        isinstance(schedules, Mapping)
        and all(isinstance(one, Mapping | None) for one in schedules.values())
    ):
        raise ConfigError(
            f"{kind}.schedule must map weights to schedules, got {schedules!r}; write "
            "schedule: {beta: {name: linear, steps: 1000}}"
        )
    return found


def default_of(key: str) -> str:
    """Return the name that a part, or else a schedule, has by default."""
    return KINDS[key].default if key in KINDS else "constant"


@cache
def _resolved(kind: str, part: str) -> str:
    from pyro_dpvae._parser import CommandParser, UsageError

    content = json.loads(part)
    parser = CommandParser()
    parser.hint = option_hint
    add_options(parser, kind, content)
    try:
        found = parser.parse_object({kind: content})
    except UsageError as error:
        refusal = error.refusal.replace(f"--{kind}.", f"{kind}.")
        raise ConfigError(f"{refusal}; of {kind} {content['name']!r}") from error
    return json.dumps(found.as_dict()[kind])


@cache
def schedule_keys() -> tuple[str, ...]:
    """Return the dotted options that name a schedule."""
    weights = {weight for objective in OBJECTIVES.values() for weight in _weights(objective)}
    return (RATE_SCHEDULE, *(f"objective.schedule.{weight}" for weight in sorted(weights)))


def _weights(builder: Callable[..., Any]) -> dict[str, Any]:
    """Return the arguments of a part that are weights, with their defaults."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(builder).parameters.items()
        if parameter.annotation == Weight
    }
