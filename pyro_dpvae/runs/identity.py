"""The identity of a run: its configuration, and an id computed from it."""

import hashlib
import json
import os
import shlex
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from pyro_dpvae.errors import ConfigError, ConfigWarning
from pyro_dpvae.runs.changes import changes, fixed_entries

__all__ = ["Identity", "differences", "parsed_object", "restoring", "run_id"]


@final
@dataclass(frozen=True)
class Identity:
    """The run that a process trains, as of the time when the process locked its folder.

    Attributes:
        text: the content of ``config.json``.
        lock: device and inode of the process's lock file.
    """

    text: str
    lock: tuple[int, int] | None

    @classmethod
    def of(cls, config: Path, lock: Path) -> "Identity":
        """Return the identity of a run from its configuration file and lock file."""
        return cls(config.read_bytes().decode(), _number(lock))

    def check_folder(self, lock: Path) -> None:
        """Raise if the folder was replaced or moved since the process locked it.

        Raises:
            FileNotFoundError: if the lock file does not exist, or is another file.
        """
        if _number(lock) != self.lock:
            raise FileNotFoundError(
                f"{lock.parent} was moved, removed or replaced during training; nothing more is "
                "written there. If the folder was moved, resume the run there with dpvae train "
                "--resume"
            )

    def look_at(self, config: Path) -> None:
        """Warn if the configuration file is now that of another run.

        Warns:
            ConfigWarning: with the changes, and the command that restores the file.
        """
        changed = "the file is gone or damaged"
        with suppress(OSError, ValueError):
            content = config.read_bytes()
            changed = differences(json.loads(self.text), parsed_object(content))
        if changed:
            warnings.warn(
                f"{config} has changed during training: {changed}; training continues, and "
                "checkpoints store the initial configuration. Restore the file with: "
                f"{restoring(config.parent)}",
                category=ConfigWarning,
                stacklevel=4,
            )


def run_id(config: Mapping[str, Any]) -> str:
    """Return the id of a run, computed from the entries of its configuration that cannot change.

    Raises:
        ConfigError: if the configuration is nested too deeply.
    """
    try:
        text = json.dumps(fixed_entries(config), sort_keys=True)
    except RecursionError as error:
        raise ConfigError("the configuration is nested too deeply") from error
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def parsed_object(content: str | bytes) -> dict[str, Any]:
    """Return the JSON object in a text.

    Raises:
        ValueError: if the text is something else, or is nested too deeply.
    """
    try:
        found = json.loads(content)
    except RecursionError as error:
        raise ConfigError("JSON nested too deeply") from error
    if not isinstance(found, dict):
        raise ConfigError(f"the JSON value {str(found)[:40]!r}")
    return found


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return how a configuration differs from an earlier one of the same run, by option."""
    return ", ".join(changes(fixed_entries(before), fixed_entries(now)))


def restoring(path: Path) -> str:
    """Return the command that restores ``config.json`` of a run from its checkpoints."""
    program = (
        f"from pyro_dpvae.runs import RunFolder; RunFolder({str(path)!r}).restore_configuration()"
    )
    return f"python -c {shlex.quote(program)}"


def _number(path: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        found = os.stat(path)
        return found.st_dev, found.st_ino
    return None
