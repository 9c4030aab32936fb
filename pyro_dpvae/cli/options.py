"""The options of commands; all but those of ``dpvae train`` are parsed without PyTorch."""

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from jsonargparse import Namespace

from pyro_dpvae._parser import CommandParser
from pyro_dpvae.evaluation.config import GROUP_NAMES, EvaluationConfig

__all__ = ["COMMANDS", "declare", "parsed"]

_TABLE = (files("pyro_dpvae.cli") / "commands.toml").read_text()

COMMANDS: dict[str, Any] = tomllib.loads(_TABLE.replace("{groups}", ",".join(GROUP_NAMES)))
"""By command, what it does and its options."""

_GROUPS: dict[str, list[Any]] = COMMANDS.pop("groups")
_TYPES: dict[str, Any] = {"int": int | None, "float or str": float | str | None}


def parsed(command: str, arguments: Sequence[str]) -> Namespace:
    """Return the options of a command line.

    Raises:
        UsageError: if an option does not exist, or has a value that it cannot take.
        ValueError: for a comparison of a single run, or one that has options of an evaluation
            without ``--evaluate``.
    """
    about = COMMANDS[command]
    parser = CommandParser(prog=f"dpvae {command}", description=about["about"])
    declare(parser, about["options"])
    options = parser.parse_args(list(arguments))
    if command == "compare":
        _check_compared(options)
    return options


def declare(parser: Any, options: Sequence[str | dict[str, Any]]) -> None:
    """Add options of ``commands.toml``, and those of groups that are named, to a parser."""
    for option in options:
        if isinstance(option, str):
            declare(parser, _GROUPS[option])
            continue
        about = dict(option)
        name, kind = about.pop("name"), _TYPES.get(about.pop("type", ""), str | None)
        if about.get("default") == "EvaluationConfig":
            about["default"] = getattr(EvaluationConfig, name[2:].replace("-", "_"))
        if about.get("default") is False:
            about["action"] = "store_true"
        elif "default" in about:
            about["type"] = type(about["default"])
        else:
            present = not name.startswith("--") and about.get("nargs") != "?"
            about["type"] = str if present or "action" in about else kind
        parser.add_argument(name, **about)


def _check_compared(options: Namespace) -> None:
    if len(options.runs) < 2:
        raise ValueError(f"a comparison needs at least two runs, got {len(options.runs)}")
    evaluation = CommandParser()
    declare(evaluation, ["evaluation"])
    for name, usual in evaluation.get_defaults().items():
        if not options.evaluate and options[name] != usual:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(
                f"options of an evaluation need --evaluate, got {option} without it; add "
                f"--evaluate, or leave {option} out"
            )
