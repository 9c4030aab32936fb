"""The settings of a run in its checkpoints, and which of them may change on resuming."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

from pyro_dpvae._devices import device_of
from pyro_dpvae.errors import ConfigError
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.objectives.schedules import described
from pyro_dpvae.runs import CHANGEABLE
from pyro_dpvae.runs.changes import ADDED
from pyro_dpvae.training.config import TrainConfig

__all__ = ["check_settings", "differences", "environment", "settings_of"]

_FUNCTION = re.compile(r"<function (.+?) at 0x[0-9a-f]+>")
_SEEN = frozenset({"steps", "evaluate_every", "checkpoint_every"})
"""Settings that the records show by themselves."""


def settings_of(config: TrainConfig, objective: RegularizedELBO) -> dict[str, Any]:
    """Return the settings of a configuration and an objective by dotted names.

    A function as learning rate is given by its name or, for a schedule, its numbers.

    Example:
        >>> settings = settings_of(TrainConfig(steps=10, accumulate=2), RegularizedELBO())
        >>> settings["accumulate"], settings["objective.rate.name"]
        (2, 'BetaRate')
    """
    values = {
        field.name: getattr(config, field.name)
        for field in fields(config)
        if field.name not in _SEEN
    }
    values["learning_rate"] = described(config.learning_rate)
    values["objective"] = objective.settings
    return dict(_flat(json.loads(json.dumps(values))))


def environment(module: nn.Module) -> dict[str, Any]:
    """Return the versions and the device of training."""
    device = device_of(module)
    names = ("torch", "pyro-ppl", "pyro-dpvae")
    return {
        "versions": {name: _version(name) for name in names},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ, each with the saved and the current value.

    Example:
        >>> differences({"patience": 2, "seed": 0}, {"patience": 3, "seed": 0})
        {'patience': (2, 3)}
    """
    before, after = {**ADDED, **saved}, {**ADDED, **now}
    for name, value in before.items():
        if isinstance(value, str):  # earlier versions kept the address of a function too
            before[name] = _FUNCTION.sub(r"\1", value)
    names = dict.fromkeys([*before, *after])
    return {n: (before.get(n), after.get(n)) for n in names if before.get(n) != after.get(n)}


def check_settings(saved: Mapping[str, Any], now: Mapping[str, Any], *, where: str) -> None:
    """Raise if a resumed run has settings that must not change.

    Args:
        saved: the settings in the checkpoint.
        now: the settings to resume with.
        where: the path of the checkpoint.

    Raises:
        ValueError: with the settings that differ.
    """
    others = {
        name: pair for name, pair in differences(saved, now).items() if name not in CHANGEABLE
    }
    if others:
        changes = ", ".join(f"{n} from {old!r} to {new!r}" for n, (old, new) in others.items())
        raise ConfigError(
            f"these settings must not change when a run is resumed from {where}: {changes}; only "
            f"{', '.join(sorted(CHANGEABLE))} may change; use the old settings or train a new run"
        )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # a checkout on the path is not installed
        return "not installed"


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in pairs:
        own = f"{name}.{key}" if name else str(key)
        if isinstance(item, dict | list):
            yield from _flat(item, own)
        else:
            yield own, item
