"""Run folders: config.json, metrics.jsonl and checkpoints/, each written atomically."""

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final

from safetensors.torch import save
from torch import Tensor

from pyro_dpvae._files import (
    read_bytes,
    read_metadata,
    read_tensors,
    refusing,
    remove_leftovers,
    write_whole,
)
from pyro_dpvae._ranks import on_first_rank
from pyro_dpvae.errors import CheckpointError, ConfigError
from pyro_dpvae.runs.changes import CHANGEABLE, option
from pyro_dpvae.runs.checkpoint import SUFFIX, Checkpoint, Stateful, write_checkpoint
from pyro_dpvae.runs.choosing import chosen, remedy, undamaged
from pyro_dpvae.runs.identity import Identity, differences, parsed_object, run_id
from pyro_dpvae.runs.lock import LOCK, locked
from pyro_dpvae.runs.records import last_step, parse, plain, whole_lines

__all__ = ["RunFolder"]

_CONFIG = "config.json"
_METRICS = "metrics.jsonl"
_CHECKPOINTS = "checkpoints"
_NONFINITE = "nonfinite"
_NEWEST = 2  # number of checkpoints to keep besides the best
_BEST = "best"


@final
class RunFolder:
    """The folder of a training run. Use :meth:`create` for a new run and :meth:`open` otherwise.

    It contains ``config.json``, the complete configuration; ``metrics.jsonl``, a JSON object per
    line; ``checkpoints/``, a safetensors file per step; and, after an evaluation,
    ``evaluation.json``. Data without a split of their own add ``held-out.json``, and data with
    three splits ``test.json``. Nothing is ever unpickled.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._identity: Identity | None = None

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any]) -> "RunFolder":
        """Create the folder and write its configuration, on rank zero; all ranks must call it.

        Raises:
            FileExistsError: if it already contains a run.
            NotADirectoryError: if the path is a file, or leads through one.
            OSError: if it cannot be written, or another process trains there.
        """
        run = cls(path)

        def write() -> None:
            # Under the lock, so that only one of two processes creates the run.
            with run.locked():
                if run.exists:
                    raise FileExistsError(
                        f"{run.path} already contains a run; continue it with "
                        f"{shlex.join(['dpvae', 'train', '--resume', str(run.path)])}, choose "
                        "another folder with --out, or remove it"
                    )
                write_whole(run.path / _CONFIG, json.dumps(config, indent=2).encode())

        on_first_rank(write)
        return run

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """Return an existing run.

        Raises:
            FileNotFoundError: if the folder contains no run.
        """
        run = cls(path)
        if not run.exists:
            raise FileNotFoundError(
                f"{run.path} is not a run folder, since it has no {_CONFIG}; pass a folder that "
                "'dpvae train --out' wrote"
            )
        return run

    @property
    def exists(self) -> bool:
        """True if the folder contains a run."""
        return (self.path / _CONFIG).exists()

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the run.

        Raises:
            ConfigError: if the file is not a JSON object.
        """
        try:
            return self.read(_CONFIG)
        except ValueError as error:
            raise ConfigError(
                f"{_CONFIG} of {self.path} is damaged: it must be a JSON object; restore it"
            ) from error

    @property
    def id(self) -> str:
        """The run's id, computed from the entries of its configuration that cannot change."""
        return run_id(self.config)

    def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Replace the configuration by another one of the same run, for example with more steps.

        Raises:
            ConfigError: if other options than those of ``CHANGEABLE`` change.
            OSError: if it cannot be written, or another process trains there.
        """
        old = self.config
        if differing := differences(old, config):
            raise ConfigError(
                f"{self.path} would change {differing}; only "
                f"{', '.join(map(option, sorted(CHANGEABLE)))} may change when a run is resumed; "
                "train another run with --out"
            )
        if dict(config) != old:
            with self.locked():
                write_whole(self.path / _CONFIG, json.dumps(config, indent=2).encode())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock while this process trains.

        Checkpoints written meanwhile store the configuration at the beginning, even if the file
        changes.

        Raises:
            BlockingIOError: if another process trains there.
        """
        with locked(self.path):
            with suppress(ValueError):  # a damaged configuration; reading it raises later
                self._identity = self._present() if self.exists else None
            try:
                yield
            finally:
                self._identity = None

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file of the folder, such as ``evaluation.json``."""
        write_whole(self.path / name, json.dumps(content, indent=2, allow_nan=False).encode())

    def read(self, name: str) -> dict[str, Any]:
        """Return the content of a JSON file of the folder, empty if the file does not exist.

        Raises:
            ConfigError: if it is not a JSON object.
        """
        path = self.path / name
        if not path.exists():
            return {}
        try:
            return parsed_object(read_bytes(path))
        except ValueError as error:
            raise ConfigError(f"{path} must hold a JSON object, got {error}; remove it") from error

    def write_tensors(
        self, name: str, tensors: Mapping[str, Tensor], *, origins: Mapping[str, str] | None = None
    ) -> None:
        """Write a safetensors file of the folder, with the origins of tensors as metadata."""
        content = save({key: t.contiguous() for key, t in tensors.items()}, dict(origins or {}))
        write_whole(self.path / name, content)

    def read_tensors(
        self, name: str, *, origins: Mapping[str, str] | None = None
    ) -> dict[str, Tensor]:
        """Return the tensors of a safetensors file of the folder, empty if it does not exist.

        Args:
            name: name of the file.
            origins: leaves out tensors with another origin than here; None returns all.
        """
        path = self.path / name
        if not path.exists():
            return {}
        if origins is None:
            return read_tensors(path)
        stored, found = read_metadata(path), read_tensors(path)
        return {key: t for key, t in found.items() if stored.get(key) == origins.get(key)}

    def log(self, record: Mapping[str, Any]) -> None:
        """Append a record to the metrics, with numbers that are not finite as strings.

        Raises:
            OSError: if it cannot be written.
        """
        path = self.path / _METRICS
        with refusing(path), path.open("a") as file:
            file.write(json.dumps(plain(record), allow_nan=False) + "\n")

    def records(self, logged: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield the records of the metrics, without an incomplete last line.

        Args:
            logged: number of bytes to read; None reads all.

        Raises:
            CheckpointError: if a line is not a JSON object.
        """
        path = self.path / _METRICS
        content = read_bytes(path)[:logged] if path.exists() else b""
        for number, line in enumerate(content.splitlines(keepends=True), 1):
            if line.endswith(b"\n"):
                yield parse(line, f"line {number} of {path}")

    @property
    def logged(self) -> int:
        """The number of bytes of records."""
        path = self.path / _METRICS
        return path.stat().st_size if path.exists() else 0

    @property
    def last_step(self) -> int:
        """The step of the last complete record with a step, or 0."""
        return last_step(self.path / _METRICS)

    def save(
        self,
        modules: Mapping[str, Stateful],
        state: Mapping[str, Any],
        *,
        training: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write a checkpoint, and remove all except the two newest and the best.

        Args:
            modules: objects with weights, by name.
            state: JSON values: the ``step``, ``best`` (the step of the best checkpoint so far),
                and anything else.
            training: further state of the training, nested as for :func:`pack`.

        Returns:
            The file of the checkpoint.

        Raises:
            OSError: if it cannot be written, or the folder was moved or replaced during training;
                earlier checkpoints are undamaged.

        Warns:
            ConfigWarning: if ``config.json`` has changed during training.
        """
        path = self._path(state["step"])
        identity = self._identity or self._present()
        identity.check_folder(self.path / LOCK)
        records = self.path / _METRICS
        if records.exists():  # synced, since their length is part of the training state
            with refusing(records), records.open("r+b") as file:
                os.fsync(file.fileno())
        write_checkpoint(path, modules, config=identity.text, state=state, training=training or {})
        identity.look_at(self.path / _CONFIG)
        steps = self.steps()
        for step in steps[:-_NEWEST]:
            if step != state.get(_BEST) and self._path(step).is_file():
                self._remove(step)
        return path

    def steps(self) -> list[int]:
        """Return the steps of all checkpoints, in order.

        Raises:
            CheckpointError: if there are checkpoints of an earlier version of the library.
        """
        folder = self.path / _CHECKPOINTS
        paths = list(folder.iterdir()) if folder.is_dir() else []
        if any(re.fullmatch(r"\d{9,}", path.name) and path.is_dir() for path in paths):
            raise CheckpointError(
                f"{folder} has checkpoints of an earlier version, one folder each; use that "
                "version, or train again in another folder"
            )
        found = (re.fullmatch(rf"(\d{{9,}}){re.escape(SUFFIX)}", path.name) for path in paths)
        return sorted(int(one[1]) for one in found if one)

    def checkpoint(self, which: str | int = "last") -> Checkpoint:
        """Read a checkpoint and verify all its bytes.

        Args:
            which: ``"last"``, ``"best"`` (according to the last one), or a step.

        Raises:
            FileNotFoundError: if it does not exist.
            CheckpointError: if it is damaged or of another run; the message names an undamaged
                one.
        """
        paths = self._checkpoints()
        path = chosen(self.path, which, paths)
        try:
            found = Checkpoint.read(path)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; {remedy(self.path, paths, self.id)}") from error
        if found.run != self.id:
            changed = differences(json.loads(found.config), self.config)
            raise CheckpointError(
                f"{path} is of run {found.run}, not of {self.id}, since {_CONFIG} has changed: "
                f"{changed}; {remedy(self.path, paths, self.id)}"
            )
        return found

    def digests(self) -> set[str]:
        """Return the digests of all undamaged checkpoints of the run."""
        here = self.id
        return {one.digest for one in undamaged(self._checkpoints()) if one.run == here}

    def tidy(self) -> None:
        """Remove temporary files of killed processes."""
        for folder in (self.path, self.path / _CHECKPOINTS, self.path / _NONFINITE):
            remove_leftovers(folder)

    def go_back(self, step: int, *, logged: int) -> int:
        """Remove checkpoints and records after a step.

        Args:
            step: the step of the checkpoint to go back to.
            logged: number of bytes of records at that step.

        Returns:
            How many of these bytes are missing.
        """
        for later in self.steps():
            if later > step:
                self._remove(later)
        path = self.path / _METRICS
        whole = whole_lines(path, logged)
        if self.logged > whole:
            with refusing(path), path.open("r+b") as file:
                file.truncate(whole)
        return logged - whole

    def restore_configuration(self) -> None:
        """Write ``config.json`` again, from the newest undamaged checkpoint.

        Raises:
            FileNotFoundError: if there is none.
        """
        newest = next(undamaged(self._checkpoints()), None)
        if newest is None:
            raise FileNotFoundError(
                f"{self.path} has no undamaged checkpoint to restore {_CONFIG} from; write the "
                "file again by hand"
            )
        with locked(self.path):
            write_whole(self.path / _CONFIG, newest.config.encode())

    def _present(self) -> Identity:
        _ = self.id  # raises if the file is damaged
        return Identity.of(self.path / _CONFIG, self.path / LOCK)

    def _checkpoints(self) -> list[Path]:
        return [self._path(step) for step in self.steps()]

    def _path(self, step: int) -> Path:
        return self.path / _CHECKPOINTS / f"{step:09d}{SUFFIX}"

    def _remove(self, step: int) -> None:
        path = self._path(step)
        with refusing(path):
            path.unlink()
