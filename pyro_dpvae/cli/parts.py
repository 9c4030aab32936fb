"""Swappable parts on the command line: ``--prior coupling --prior.blocks 4``."""

import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from pyro_dpvae.cli.parser import CommandParser
from pyro_dpvae.likelihoods import LIKELIHOODS
from pyro_dpvae.nn import ARCHITECTURES, LADDERS, PIXEL_NETWORKS
from pyro_dpvae.objectives import OBJECTIVES, SCHEDULES, AbstractSchedule, Weight
from pyro_dpvae.recipes import GUIDES, MODELS, SYSTEM_PRIORS, named_recipe

__all__ = ["PARTS", "RATE_SCHEDULE", "PartParser", "merge_files", "spell_out"]


_LARGEST = 10_000  # values in a configuration file


@dataclass(frozen=True)
class _Kind:
    """A kind of part: what it is, its choices by name, and what is not an option of theirs."""

    title: str
    choices: Mapping[str, Callable[..., Any] | None]
    default: str
    skip: frozenset[str]


# What the system itself supplies, and functions and objects, which have no spelling here.
_BUILT = frozenset(
    {"latent_dim", "dataset_size", "shape", "image_shape", "raw_shape", "features", "parts"}
    | {
        "encoder",
        "feature_channels",
        "bound",
        "base",
        "rate",
        "penalties",
        "max_plate_nesting",
        "plate",
    }
)

PARTS: dict[str, _Kind] = {
    "model": _Kind("model p(x, z)", MODELS, "vae", _BUILT),
    "prior": _Kind("prior p(z)", SYSTEM_PRIORS, "coupling", _BUILT),
    "likelihood": _Kind("likelihood p(x|z)", LIKELIHOODS, "gaussian-learned", _BUILT),
    "network": _Kind(
        "networks of encoder and decoder (auto: those that suit the model and the data's shape)",
        {"auto": None, **{n: pair.encoder for n, pair in {**ARCHITECTURES, **LADDERS}.items()}},
        "auto",
        _BUILT,
    ),
    "pixels": _Kind(
        "pixel network of a lossy model (auto: the one that suits the data's shape)",
        {"auto": None, **PIXEL_NETWORKS},
        "auto",
        _BUILT,
    ),
    "guide": _Kind("guide q(z|x)", GUIDES, "amortized", _BUILT),
    "objective": _Kind("objective", OBJECTIVES, "elbo", _BUILT),
}
"""The parts of a system, in the order of the help."""

RATE_SCHEDULE = "learning_rate_schedule"
"""The key of the learning rate's schedule."""

_TYPED_RATE_SCHEDULE = "--learning-rate-schedule"


class PartParser(CommandParser):
    """A parser with an option for each part, and the options of the parts that were chosen.

    Args:
        arguments: the command line, read for the names of the parts.
        options: of ``CommandParser``.
    """

    def __init__(self, arguments: Sequence[str], **options: Any) -> None:
        super().__init__(print_config="--print-config", **options)
        self._choices = _chosen(_pairs(arguments))

    def add_parts(self) -> None:
        """Add the options of all parts, a group for each."""
        for part, kind in PARTS.items():
            name = self._choices.get(part, kind.default)
            group = self.add_argument_group(f"{kind.title}; options are those of {name!r}")
            group.add_argument(
                f"--{part}.name",
                choices=list(kind.choices),
                default=kind.default,
                help="which one",
            )
            builder = kind.choices.get(name)
            if isinstance(builder, type):
                weights = _weights(builder)
                skip = set(kind.skip) | set(weights)
                group.add_class_arguments(builder, part, as_group=False, skip=skip)
                for weight, default in weights.items():
                    self._add_weight(group, part, weight, default)
            elif builder is not None:
                group.add_function_arguments(builder, part, as_group=False, skip=set(kind.skip))

    def _add_weight(self, group: Any, part: str, weight: str, default: Any) -> None:
        """Add a weight, and the schedule on which it gets there."""
        scheduled = isinstance(default, AbstractSchedule)
        key = f"{part}.schedule.{weight}"
        constant = type(default) if scheduled else None
        usual = next((n for n, kind in SCHEDULES.items() if kind is constant), "constant")
        name = self._choices.get(key, usual)
        group.add_argument(
            f"--{part}.{weight}",
            type=float,
            default=default.end if scheduled else default,
            help="a weight, where its schedule ends",
        )
        group.add_argument(
            f"--{key}.name",
            choices=["constant", *SCHEDULES],
            default=usual,
            help=f"how {weight} gets there",
        )
        if name not in SCHEDULES:
            return
        steps = default.steps if scheduled else None
        start = default.start if scheduled else 0.0
        group.add_argument(f"--{key}.start", type=float, default=start, help=f"{weight} at step 0")
        group.add_argument(
            f"--{key}.steps",
            type=int,
            default=steps,
            required=steps is None,
            help="how many training steps it takes",
        )
        skip = {"start", "end", "steps"}
        group.add_class_arguments(SCHEDULES[name], key, as_group=False, skip=skip)

    def add_learning_rate(self, group: Any, default: float) -> None:
        """Add the learning rate, and the schedule on which it goes on from there."""
        group.add_argument(
            "--learning-rate",
            type=float,
            default=default,
            help="of Adam, where its schedule starts",
        )
        name = self._choices.get(RATE_SCHEDULE, "constant")
        group.add_argument(
            f"--{RATE_SCHEDULE}.name",
            choices=["constant", *SCHEDULES],
            default="constant",
            help="how the learning rate goes on",
        )
        if name not in SCHEDULES:
            return
        key = f"--{RATE_SCHEDULE}"
        group.add_argument(f"{key}.end", type=float, default=0.0, help="where it goes to")
        group.add_argument(
            f"{key}.steps",
            type=int | None,
            help="how many training steps it takes (default: all of the run)",
        )
        skip = {"start", "end", "steps"}
        group.add_class_arguments(SCHEDULES[name], RATE_SCHEDULE, as_group=False, skip=skip)

    def as_typed(self, text: str) -> str:
        """Return a text with parts spelled as users spell them, ``--prior`` and not its name."""
        for key in _named_keys():
            text = text.replace(f"--{key}.name", f"--{key}")
        return text.replace(f"--{RATE_SCHEDULE}", _TYPED_RATE_SCHEDULE)

    def format_help(self, *arguments: Any) -> str:
        """Return the help, with parts spelled as users spell them."""
        return self.as_typed(super().format_help(*arguments))

    def format_usage(self, *arguments: Any) -> str:
        """Return the usage, with parts spelled as users spell them."""
        return self.as_typed(super().format_usage(*arguments))


def spell_out(arguments: Iterable[str]) -> list[str]:
    """Return a command line with ``--prior X`` written as ``--prior.name X``.

    ``--override KEY=VALUE`` becomes the option of the key, as a recipe or a file has it.

    Raises:
        ValueError: for an override that is none, or a schedule of no weight.

    Example:
        >>> spell_out(["--prior", "coupling", "--prior.blocks=4"])
        ['--prior.name', 'coupling', '--prior.blocks=4']
        >>> spell_out(["--override", "learning_rate=1e-3"])
        ['--learning-rate=1e-3']
    """
    spelled = []
    for argument in _overriding(arguments):
        option, equals, value = argument.partition("=")
        if option == _TYPED_RATE_SCHEDULE or option.startswith(f"{_TYPED_RATE_SCHEDULE}."):
            option = option.replace("-", "_").replace("__", "--", 1)
        if option == "--objective.schedule":
            raise ValueError(
                "a schedule is that of one weight, got --objective.schedule; write "
                "--objective.schedule.beta linear --objective.schedule.beta.steps 1000"
            )
        if option.removeprefix("--") in _named_keys() and option.startswith("--"):
            option = f"{option}.name"
        spelled.append(f"{option}{equals}{value}")
    return spelled


def _overriding(arguments: Iterable[str]) -> Iterator[str]:
    """Yield a command line with overrides written as options."""
    given = iter(arguments)
    for argument in given:
        option, equals, value = argument.partition("=")
        if option != "--override":
            yield argument
            continue
        pair = value if equals else next(given, "")
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise ValueError(
                f"an override must be KEY=VALUE, got {pair!r}; write --override objective.beta=4"
            )
        first, dot, rest = key.partition(".")
        yield f"--{first.replace('_', '-')}{dot}{rest}={value}"


def merge_files(arguments: Sequence[str]) -> list[str]:
    """Return a spelled-out command line with its recipe and configuration files written out.

    What the command line says goes before a recipe that it names, and that before what a file
    says; a recipe that a file names goes behind the file. A part or a schedule that goes before
    another loses the options of the other one, and a number of steps or of epochs the other one.
    """
    rest, files = _without_configs(arguments)
    pairs = _pairs(rest)
    recipe = next((value for option, value in reversed(pairs) if option == "--recipe"), None)
    layers = [(_read(Path(path)), path) for path in reversed(files) if Path(path).is_file()]
    if recipe is not None:
        layers.insert(0, (_recipe(recipe), "the recipe"))
    elif any(content.get("recipe") for content, _ in layers):
        recipe = next(content["recipe"] for content, _ in layers if content.get("recipe"))
        layers.append((_recipe(recipe), "the recipe"))
    names, options = _chosen(pairs), {option for option, _ in pairs}
    written: list[str] = []
    for content, where in layers:
        left = _yielding(content, where, names, options)
        names = {**_chosen_in(left, where), **names}
        options |= {f"--{key}" for key in left}
        written = ["--config", json.dumps(left), *written]
    missing = [part for path in files if not Path(path).is_file() for part in ("--config", path)]
    return [*missing, *written, *rest]


def _without_configs(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return a command line without its configurations, and these."""
    rest, configs = list[str](), list[str]()
    given = iter(arguments)
    for argument in given:
        option, equals, value = argument.partition("=")
        if option != "--config":
            rest.append(argument)
            continue
        path = value if equals else next(given, None)
        if path is None:
            rest.append(argument)  # for the parser to refuse
        else:
            configs.append(path)
    return rest, configs


def _recipe(name: str) -> dict[str, Any]:
    options = named_recipe(name).options
    return json.loads(json.dumps(options))  # a copy to its depth, which may lose options


def _yielding(
    content: dict[str, Any], where: str, names: dict[str, str], options: set[str]
) -> dict[str, Any]:
    """Return the content of a file without what the command line overrules."""
    in_file = _chosen_in(content, where)
    for key, name in names.items():
        *levels, last = key.split(".")
        section = content
        for level in levels:
            section = section.get(level) or {}
        usual = PARTS[key].default if key in PARTS else "constant"
        if last in section and in_file.get(key, usual) != name:
            section[last] = {"name": name}
    for one, other in (("steps", "epochs"), ("epochs", "steps")):
        if f"--{one}" in options:
            content.pop(other, None)
    return content


def _pairs(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """Return the options of a spelled-out command line with what follows each."""
    pairs: list[tuple[str, str]] = []
    for position, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if not equals:
            value = arguments[position + 1] if position + 1 < len(arguments) else ""
        pairs.append((option, value))
    return pairs


def _chosen(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the names of parts that options give, and the files among them."""
    names: dict[str, str] = {}
    for option, value in pairs:
        if option == "--config" and value.startswith("{"):
            names.update(_chosen_in(json.loads(value), "the configuration"))
        key = option.removeprefix("--").removesuffix(".name")
        if option == f"--{key}.name" and key in _named_keys():
            names[key] = value
    return names


def _chosen_in(content: dict[str, Any], where: str) -> dict[str, str]:
    """Return the names of parts and schedules in the content of a file."""
    names: dict[str, str] = {}
    for key in _named_keys():
        section: Any = content
        for level in key.split("."):
            section = section.get(level) or {}
            if not isinstance(section, dict):
                raise ValueError(
                    f"objective.schedule must map weights to schedules, got {section!r} in "
                    f"{where}; write schedule: {{beta: {{name: linear, steps: 1000}}}}"
                    if level == "schedule"
                    else f"{key} must be a mapping of its name and options, got {section!r} in "
                    f"{where}; write {level}: {{name: {section}}}"
                )
        if "name" in section:
            names[key] = str(section["name"])
    return names


@cache
def _named_keys() -> tuple[str, ...]:
    """Return the dotted keys of what is chosen by name: parts and schedules."""
    schedules = {
        f"objective.schedule.{weight}"
        for objective in OBJECTIVES.values()
        for weight in _weights(objective)
    }
    return (*PARTS, RATE_SCHEDULE, *sorted(schedules))


def _weights(builder: Callable[..., Any]) -> dict[str, Any]:
    """Return the arguments of a part that are weights, with their defaults."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(builder).parameters.items()
        if parameter.annotation == Weight
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        content = _plain(yaml.safe_load(path.read_text()), count())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).replace("\n", " ").replace("unhashable key", "a key that is no text")
        raise ValueError(f"a configuration must be YAML or JSON, got {path}: {reason}") from error
    if not isinstance(content, dict):
        raise ValueError(f"a configuration must map options to values, got {content!r} in {path}")
    if "config" in content:
        raise ValueError(
            f"a configuration must hold options, got a file in it, {content['config']!r}, in "
            f"{path}; name both on the command line"
        )
    return content


def _plain(content: Any, numbers: Iterator[int]) -> Any:
    """Return the content of a file with what YAML repeats written out, as JSON could hold it."""
    if next(numbers) >= _LARGEST:  # a few lines of repetitions of repetitions fill any memory
        raise ValueError(f"it holds more than {_LARGEST} values")
    if isinstance(content, dict):
        for key in content:
            if not isinstance(key, str):
                raise ValueError(f"names of options must be text, got {key!r}")
        return {key: _plain(value, numbers) for key, value in content.items()}
    if isinstance(content, list):
        return [_plain(value, numbers) for value in content]
    if content is None or isinstance(content, bool | int | float | str):
        return content
    raise ValueError(f"values must be numbers, text, lists or mappings, got {content!r}")
