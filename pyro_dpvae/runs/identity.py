"""Which run a folder holds: the configuration that it was trained with, and a name made of it."""

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
from pyro_dpvae.runs.changes import CHANGEABLE, changes

__all__ = ["Identity", "differences", "parsed_object", "restoring", "run_id"]


@final
@dataclass(frozen=True)
class Identity:
    """The run that a process trains in a folder, taken once, when the process locks the folder.

    Attributes:
        id: the name of the run.
        text: the content of ``config.json``.
        lock: the lock file of the process, as the file system numbers it.
    """

    id: str
    text: str
    lock: tuple[int, int] | None

    @classmethod
    def of(cls, config: Path, lock: Path) -> "Identity":
        """Return the identity of the run that has this configuration file and lock file."""
        content = config.read_bytes().decode()
        return cls(run_id(parsed_object(content)), content, _number(lock))

    def check_folder(self, lock: Path) -> None:
        """Refuse a folder that was replaced or moved away since the process locked it.

        Raises:
            FileNotFoundError: if the lock file is gone, or is another one.
        """
        if _number(lock) != self.lock:
            raise FileNotFoundError(
                f"{lock.parent} was moved, removed or replaced while its run trained, and what is "
                "there now is another's; nothing is written into it. If the run's folder was "
                "moved, go on there with dpvae train --resume"
            )

    def look_at(self, config: Path) -> None:
        """Warn if the configuration file is another run's now.

        Warns:
            UserWarning: with what has changed, and how to restore the file.
        """
        changed = "the file is gone or damaged"
        with suppress(OSError, ValueError):
            content = config.read_bytes()
            changed = differences(self.text, parsed_object(content))
        if changed:
            warnings.warn(
                f"{config} has changed while its run trains: {changed}; the run goes on, and its "
                "checkpoints are of the configuration that it began with. Restore the file with: "
                f"{restoring(config.parent)}",
                category=ConfigWarning,
                stacklevel=4,
            )


def run_id(config: Mapping[str, Any]) -> str:
    """Return a name of a run: of all entries of its configuration that make it this run.

    An entry that is null counts as one that is not there, as later versions add some.

    Raises:
        ValueError: if the configuration is nested too deeply.
    """
    own = {k: v for k, v in config.items() if k not in CHANGEABLE and v is not None}
    try:
        text = json.dumps(own, sort_keys=True)
    except RecursionError as error:
        raise ConfigError("a configuration must not be nested so deeply") from error
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def parsed_object(content: str | bytes) -> dict[str, Any]:
    """Return the JSON object in a text.

    Raises:
        ValueError: if it is none, or is nested too deeply.
    """
    try:
        found = json.loads(content)
    except RecursionError as error:
        raise ConfigError("it is nested too deeply") from error
    if not isinstance(found, dict):
        raise ConfigError(f"it holds {str(found)[:40]!r}")
    return found


def differences(before: str, now: Mapping[str, Any]) -> str:
    """Return how a configuration differs from the text of an earlier one, option by option.

    Args:
        before: the content of ``config.json`` then.
        now: the present configuration.
    """
    old, new = (
        {k: v for k, v in one.items() if k not in CHANGEABLE and v is not None}
        for one in (parsed_object(before), now)
    )
    return ", ".join(changes(old, new))


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
