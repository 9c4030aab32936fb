"""The command line of ``dpvae train``, from arguments to a ``RunConfig``."""

from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from typing import Any

import yaml
from jsonargparse import ActionYesNo, Namespace

from pyro_dpvae._parser import CommandParser
from pyro_dpvae.cli.files import read_file
from pyro_dpvae.cli.options import COMMANDS, declare
from pyro_dpvae.data import READING
from pyro_dpvae.recipes.config import RunConfig, merged
from pyro_dpvae.recipes.named import named_recipe
from pyro_dpvae.recipes.parts import (
    KINDS,
    RATE_SCHEDULE,
    add_options,
    as_mapping,
    option_hint,
    schedule_keys,
)
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.training import StepOptions

__all__ = ["TrainOptions", "parsed"]

# Options of the command, beside those of the run.
_COMMAND = ("out", "resume", "checkpoint", "download", "seeds", "sweep")
_DATA = ("data", "root", *READING, "workers", "preprocessing")
_PARTS = (*KINDS, RATE_SCHEDULE)


@dataclass(frozen=True)
class TrainOptions:
    """What a command line of ``dpvae train`` asks for.

    Attributes:
        run: the options of the run that are given, by the command line, a recipe or a file.
        out: the run folder.
        resume: the run folder of a run that goes on, or starts there.
        checkpoint: the checkpoint that it goes on from.
        download: whether a data set by name is fetched if it is missing.
        seeds: the seeds of several runs, separated by commas.
        sweep: options with the values of several runs, each ``KEY=VALUE,VALUE``.
    """

    run: dict[str, Any]
    out: str | None = None
    resume: str | None = None
    checkpoint: str | None = None
    download: bool = False
    seeds: str | None = None
    sweep: tuple[str, ...] = ()

    @property
    def config(self) -> RunConfig:
        """The configuration of the run.

        Raises:
            ValueError: if the options do not make one.
        """
        if self.run.get("data") is None and self.resume is not None:
            raise ValueError(
                f"{self.resume} holds no run yet; to start one there, give --data and its options"
            )
        return RunConfig.of(self.run)


def parsed(arguments: Sequence[str]) -> TrainOptions:
    """Return what a command line asks for.

    Options of the command line replace those of a recipe that it names, and these replace those
    of a file. A recipe that a file names comes after the file. The configuration of a run that
    goes on comes last.

    Raises:
        UsageError: if there is no such option, or it cannot take its value.
        ValueError: if a recipe, a file or a part is refused.
        SystemExit: after ``--help`` and ``--print-config``.
    """
    spelled = list(_spelled(arguments))
    early = _early(spelled)
    below: dict[str, Any] = reduce(
        lambda low, high: merged(high, low), reversed(_layers(early)), {}
    )
    chosen = Namespace()
    for option, values in early.items():
        if option.endswith(".name") and values:
            chosen[option] = values[-1]  # a dotted key makes a nested mapping
    parser = _parser(merged(chosen.as_dict(), below))
    shown = "--print_config" in spelled
    found = parser.parse_args([one for one in spelled if one != "--print_config"], defaults=False)
    options = found.as_dict()
    options.pop("config", None)
    command = {name: options.pop(name) for name in _COMMAND if name in options}
    if "sweep" in command:
        command["sweep"] = tuple(command["sweep"])
    run = merged(options, below)
    if shown:
        whole = RunConfig.of({**run, "data": run.get("data") or "two-moons"}).as_dict()
        print(yaml.safe_dump({**whole, "data": run.get("data")}, sort_keys=False), end="")
        raise SystemExit(0)
    _check_folder(command)
    return TrainOptions(run, **command)


def _spelled(arguments: Iterable[str]) -> Iterator[str]:
    """Yield a command line with ``--prior X`` written as ``--prior.name X``, and underscores.

    ``--override KEY=VALUE`` becomes the option of the key, as a recipe or a file has it.

    Example:
        >>> list(_spelled(["--prior", "coupling", "--batch-size=4", "--override", "seed=2"]))
        ['--prior.name', 'coupling', '--batch_size=4', '--seed=2']
    """
    named = {*KINDS, *schedule_keys()}
    known = {*(one.name for one in fields(RunConfig)), *_COMMAND, "config", "print_config"}
    given = iter(arguments)
    for argument in given:
        option, equals, value = argument.partition("=")
        if option == "--override":
            pair = value if equals else next(given, "")
            key, equals, value = pair.partition("=")
            if not (key and equals):
                raise ValueError(
                    f"an override must be KEY=VALUE, got {pair!r}; write --override "
                    "objective.beta=4"
                )
            option = f"--{key}"
        if not option.startswith("--"):
            yield argument
            continue
        key = option.removeprefix("--")
        if (
            key.partition(".")[0].replace("-", "_") in known
        ):  # others are refused as they are typed
            key = key.replace("-", "_")
        if key == "objective.schedule":
            raise ValueError(
                "a schedule is that of one weight, got --objective.schedule; write "
                "--objective.schedule.beta linear --objective.schedule.beta.steps 1000"
            )
        yield f"--{key}{'.name' if key in named else ''}{equals}{value}"


def _early(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Return the values of options that decide which others there are: files, names of parts."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    names = [f"{key}.name" for key in (*KINDS, *schedule_keys())]
    for option in ("config", "recipe", "resume", *names):
        parser.add_argument(f"--{option}", nargs="?", action="append", default=[])
    found = vars(parser.parse_known_args(arguments)[0])
    return {option: [one for one in values if one is not None] for option, values in found.items()}


def _layers(early: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Return what the recipe, the files and the resumed run say, those that win first."""
    layers = [_mappings(read_file(path), path) for path in reversed(early["config"])]
    if recipe := ["", *early["recipe"]][-1]:
        layers.insert(0, {**named_recipe(recipe).options})
    elif recipe := next((one["recipe"] for one in layers if one.get("recipe")), ""):
        layers.append({**named_recipe(recipe).options})
    if early["resume"] and (run := RunFolder(early["resume"][-1])).exists:
        layers.append(run.config)
    return layers


def _mappings(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the content of a file, of which parts are names or mappings.

    Raises:
        ValueError: if a part is neither.
    """
    try:
        return {k: as_mapping(k, v) if k in _PARTS else v for k, v in content.items()}
    except ValueError as error:
        raise ValueError(f"{error}; in {where}") from error


class _TrainParser(CommandParser):
    """A parser whose texts have options as users spell them: ``--batch-size``, ``--prior``."""

    hint = staticmethod(option_hint)

    def as_typed(self, text: str) -> str:
        """Return a text with options spelled as users do."""
        for key in sorted({*KINDS, *schedule_keys()}, key=len, reverse=True):
            text = text.replace(f"--{key}.name", f"--{key}")
        names = (*(one.name for one in fields(RunConfig)), "print_config")
        for name in sorted(names, key=len, reverse=True):
            text = text.replace(f"--{name}", f"--{name.replace('_', '-')}")
        return text

    def format_help(self, *arguments: Any) -> str:
        """Return the help, with options spelled as users do."""
        return self.as_typed(super().format_help(*arguments))

    def format_usage(self, *arguments: Any) -> str:
        """Return the usage, with options spelled as users do."""
        return self.as_typed(super().format_usage(*arguments))


def _parser(chosen: Mapping[str, Any]) -> _TrainParser:
    """Return a parser with the options of a run, and with those of the chosen parts."""
    table = COMMANDS["train"]
    parser = _TrainParser(prog="dpvae train", description=table["about"])
    declare(parser, table["options"])
    several = "several runs, in folders of --out, with a table at the end"
    declare(parser.add_argument_group(several), table["several"])
    names = [one.name for one in fields(RunConfig)]
    steps = [one.name for one in fields(StepOptions)]
    groups = {
        "data": _DATA,
        "training": [name for name in names if name not in (*_DATA, *steps, *_PARTS)],
        "steps, records and guards": steps,
    }
    for title, members in groups.items():
        group = parser.add_argument_group(title)
        skip = {name for name in names if name not in members} | {"tensorboard"}
        group.add_class_arguments(RunConfig, None, as_group=False, skip=skip)
    group.add_argument(
        "--tensorboard",
        action=ActionYesNo(no_prefix="no-"),
        default=False,
        help="write RUN/tensorboard for TensorBoard too",
    )
    for kind, about in KINDS.items():
        part = as_mapping(kind, chosen.get(kind, about.default))
        group = parser.add_argument_group(f"{about.title}; options are those of {part['name']!r}")
        add_options(group, kind, part)
    schedule = as_mapping(RATE_SCHEDULE, chosen.get(RATE_SCHEDULE, "constant"))
    add_options(parser.add_argument_group("learning rate"), RATE_SCHEDULE, schedule)
    for action in parser._actions:
        action.required = False  # a recipe, a file or the resumed run may have it
    return parser


def _check_folder(command: Mapping[str, Any]) -> None:
    for option in ("out", "resume"):
        if command.get(option) == "":  # which a path takes for the present folder
            raise ValueError(f"--{option} must not be empty, got ''; name it, or leave it out")
    resume = command.get("resume")
    if resume is not None and command.get("out") is not None:
        raise ValueError(
            f"a run goes on in its own folder, got --out beside --resume {resume}; give one of "
            "them"
        )
    if command.get("checkpoint") is not None and resume is None:
        raise ValueError(
            f"a checkpoint is that of a run, got --checkpoint {command['checkpoint']} without "
            "one; add --resume RUN"
        )
