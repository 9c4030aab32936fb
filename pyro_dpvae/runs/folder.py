"""Run folders: config.json, metrics.jsonl and checkpoints/, each written whole or not at all."""

import json
import os
import re
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
from pyro_dpvae.runs.changes import CHANGEABLE, changes, option
from pyro_dpvae.runs.checkpoint import SUFFIX, Checkpoint, Stateful, write_checkpoint
from pyro_dpvae.runs.choosing import chosen, remedy
from pyro_dpvae.runs.identity import Identity, differences, parsed_object, run_id
from pyro_dpvae.runs.lock import LOCK, locked
from pyro_dpvae.runs.records import last_step, parse, plain, whole_lines

__all__ = ["RunFolder"]

_CONFIG = "config.json"
_METRICS = "metrics.jsonl"
_CHECKPOINTS = "checkpoints"
_NONFINITE = "nonfinite"
_NEWEST = 2  # checkpoints that are kept beside the best
_BEST = "best"


@final
class RunFolder:
    """A folder that holds all of one training run.

    It has ``config.json`` (what was trained, as resolved from the command line),
    ``metrics.jsonl`` (a JSON object a line), ``checkpoints/`` (a safetensors file for each, by
    its step) and, once measured, ``evaluation.json``. Data without a split of
    their own add ``held-out.json``, and data with three splits add ``test.json``. Nothing in it is
    ever unpickled.

    Use :meth:`create` for a new run and :meth:`open` for one that exists.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._identity: Identity | None = None

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any]) -> "RunFolder":
        """Make the folder and write its configuration; among ranks the first one does it.

        All ranks must call it then.

        Raises:
            FileExistsError: if a run is there already.
            NotADirectoryError: if the path is a file, or leads through one.
            OSError: if it cannot be written, or another process trains there.
        """
        run = cls(path)

        def write() -> None:
            # Of two processes that make one folder, the second finds the first's.
            with run.locked():
                if run.exists:
                    raise FileExistsError(
                        f"a run folder is written once, and {run.path} holds a run already; go on "
                        "with it by --resume, name another with --out, or remove it"
                    )
                write_whole(run.path / _CONFIG, json.dumps(config, indent=2).encode())

        on_first_rank(write)
        return run

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """Return the run in a folder.

        Raises:
            FileNotFoundError: if no run is there.
        """
        run = cls(path)
        if not run.exists:
            raise FileNotFoundError(
                f"a run folder holds {_CONFIG}, and {run.path} does not; "
                "give the folder that 'dpvae train --out' wrote"
            )
        return run

    @property
    def exists(self) -> bool:
        """Whether a run is there."""
        return (self.path / _CONFIG).exists()

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the run.

        Raises:
            ConfigError: if the file holds no JSON object.
        """
        try:
            return self.read(_CONFIG)
        except ValueError as error:
            raise ConfigError(
                f"{_CONFIG} of {self.path} is damaged and holds no JSON object; restore it"
            ) from error

    @property
    def id(self) -> str:
        """A name of the run: of all in its configuration that makes it this run."""
        return run_id(self.config)

    def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Replace the configuration by one of the same run, such as one of more steps.

        Raises:
            ConfigError: if it makes it another run, with the entries that do.
            OSError: if it cannot be written, or another process trains there.
        """
        old = self.config
        before, after = (
            {key: value for key, value in one.items() if key not in CHANGEABLE}
            for one in (old, config)
        )
        if differing := ", ".join(changes(before, after)):
            raise ConfigError(
                f"a run goes on as it was configured, and {self.path} would change {differing}; "
                f"only {', '.join(map(option, sorted(CHANGEABLE)))} may; train another run with "
                "--out"
            )
        if dict(config) != old:
            with self.locked():
                write_whole(self.path / _CONFIG, json.dumps(config, indent=2).encode())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process while it trains.

        Checkpoints in here are of the configuration that the folder has at the beginning,
        whatever becomes of the file.

        Raises:
            BlockingIOError: on entry, if another process trains there.
        """
        with locked(self.path):
            with suppress(ValueError):  # of a damaged configuration, for whoever reads it to say
                self._identity = self._present() if self.exists else None
            try:
                yield
            finally:
                self._identity = None

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file of the folder, such as ``evaluation.json``."""
        write_whole(self.path / name, json.dumps(content, indent=2, allow_nan=False).encode())

    def read(self, name: str) -> dict[str, Any]:
        """Return a JSON file of the folder, empty if it is not there.

        Raises:
            ValueError: if it holds no JSON object.
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
        """Write a safetensors file of the folder, with what tensors come from as its metadata."""
        content = save({key: t.contiguous() for key, t in tensors.items()}, dict(origins or {}))
        write_whole(self.path / name, content)

    def read_tensors(
        self, name: str, *, origins: Mapping[str, str] | None = None
    ) -> dict[str, Tensor]:
        """Return a safetensors file of the folder, empty if it is not there.

        Args:
            name: of the file.
            origins: leaves out the tensors of a name in here that come from anything else.
        """
        path = self.path / name
        if not path.exists():
            return {}
        if origins is None:
            return read_tensors(path)
        said = read_metadata(path)
        found = read_tensors(path)
        return {key: t for key, t in found.items() if said.get(key) == origins.get(key)}

    def log(self, record: Mapping[str, Any]) -> None:
        """Add a record to the metrics, with numbers that are not finite as strings.

        Raises:
            OSError: if it cannot be written.
        """
        path = self.path / _METRICS
        with refusing(path), path.open("a") as file:
            file.write(json.dumps(plain(record), allow_nan=False) + "\n")

    def records(self, logged: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield the records of the metrics; a last one that was not written whole is left out.

        Args:
            logged: of how many bytes; None takes all.

        Raises:
            ValueError: if a line holds no JSON object.
        """
        path = self.path / _METRICS
        content = read_bytes(path)[:logged] if path.exists() else b""
        for number, line in enumerate(content.splitlines(keepends=True), 1):
            if line.endswith(b"\n"):
                yield parse(line, f"line {number} of {path}")

    @property
    def logged(self) -> int:
        """How many bytes of records there are."""
        path = self.path / _METRICS
        return path.stat().st_size if path.exists() else 0

    @property
    def last_step(self) -> int:
        """The step of the last record that is whole and has one; 0 before there is any."""
        return last_step(self.path / _METRICS)

    def save(
        self,
        modules: Mapping[str, Stateful],
        state: Mapping[str, Any],
        *,
        training: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write a checkpoint, and remove those that are neither the two newest nor the best.

        One of the same step is replaced.

        Args:
            modules: what has weights, by name.
            state: what is kept of it in JSON: its ``step``, under which it lies; ``best``, the
                step of the best checkpoint so far, if one is; anything else.
            training: what a resumed run needs beside the weights, nested as :func:`pack` takes it.

        Returns:
            The file of the checkpoint.

        Raises:
            OSError: if it cannot be written; those before are whole then. Likewise if the folder
                was moved or replaced while this process holds it.

        Warns:
            UserWarning: if ``config.json`` has changed since this process holds the folder.
        """
        path = self._path(state["step"])
        identity = self._identity or self._present()
        identity.check_folder(self.path / LOCK)
        self._sync_records()  # whose length is part of the training state
        write_checkpoint(
            path,
            modules,
            run=identity.id,
            config=identity.text,
            state=state,
            training=training or {},
        )
        identity.look_at(self.path / _CONFIG)
        steps = self.steps()
        for step in steps[:-_NEWEST]:
            if step != state.get(_BEST):
                self._remove(step)
        return path

    def steps(self) -> list[int]:
        """Return the steps of which there are checkpoints, in order.

        Raises:
            CheckpointError: if an earlier version of the library has written checkpoints here.
        """
        folder = self.path / _CHECKPOINTS
        paths = list(folder.iterdir()) if folder.is_dir() else []
        if any(re.fullmatch(r"\d{9,}", path.name) and path.is_dir() for path in paths):
            raise CheckpointError(
                f"a checkpoint is one file, and {folder} has a folder for each, as earlier "
                "versions wrote them; use that version, or train again in another folder"
            )
        found = (re.fullmatch(rf"(\d{{9,}}){re.escape(SUFFIX)}", path.name) for path in paths)
        return sorted(int(one[1]) for one in found if one)

    def checkpoint(self, which: str | int = "last") -> Checkpoint:
        """Return a checkpoint after a look at all its bytes.

        Args:
            which: ``"last"``, that of the highest step; ``"best"``, the one that the last calls
                so; or a step.

        Raises:
            FileNotFoundError: if there is none, with those that there are.
            CheckpointError: if it is damaged or of another run, with one that is whole.
        """
        paths = [self._path(one) for one in self.steps()]
        path = chosen(self.path, which, paths)
        try:
            found = Checkpoint.read(path)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; {remedy(self.path, paths, self.id)}") from error
        if found.run != self.id:
            raise CheckpointError(
                f"a checkpoint must be of the run in whose folder it lies, and {path} is of run "
                f"{found.run}, not of {self.id}. {_CONFIG} differs from that of its training: "
                f"{differences(found.config, self.config)}; {remedy(self.path, paths, self.id)}"
            )
        return found

    def digests(self) -> set[str]:
        """Return the digests of the checkpoints that there are, as far as they can be read."""
        found = set()
        for step in self.steps():
            with suppress(CheckpointError):
                checkpoint = Checkpoint.read(self._path(step))
                if checkpoint.run == self.id:  # or the configuration is not that of the run
                    found.add(checkpoint.digest)
        return found

    def tidy(self) -> None:
        """Remove what killed writes have left."""
        for folder in (self.path, self.path / _CHECKPOINTS, self.path / _NONFINITE):
            remove_leftovers(folder)

    def go_back(self, step: int, *, logged: int) -> int:
        """Remove what came after a checkpoint.

        Args:
            step: of the checkpoint.
            logged: how many bytes of records there were.

        Returns:
            How many of those bytes are missing, from the first record that is not whole on.
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
        """Write ``config.json`` anew, from the newest checkpoint that is whole.

        Raises:
            FileNotFoundError: if there is none.
        """
        for step in reversed(self.steps()):
            with suppress(CheckpointError):
                config = Checkpoint.read(self._path(step)).config
                with locked(self.path):
                    write_whole(self.path / _CONFIG, config.encode())
                return
        raise FileNotFoundError(
            f"a configuration is restored from a whole checkpoint, and {self.path} has none; "
            f"write {_CONFIG} again as it was"
        )

    def _present(self) -> Identity:
        _ = self.config  # which says what is wrong with the file
        return Identity.of(self.path / _CONFIG, self.path / LOCK)

    def _sync_records(self) -> None:
        path = self.path / _METRICS
        if path.exists():
            with refusing(path), path.open("r+b") as file:
                os.fsync(file.fileno())

    def _path(self, step: int) -> Path:
        return self.path / _CHECKPOINTS / f"{step:09d}{SUFFIX}"

    def _remove(self, step: int) -> None:
        path = self._path(step)
        with refusing(path):
            path.unlink()
