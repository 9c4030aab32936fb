"""One checkpoint: four files in a folder, written at once and checked when they are read."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from pyro_dpvae._files import make_folder, refusing, sync_folder, write_synced
from pyro_dpvae.runs.identity import parsed_object
from pyro_dpvae.runs.packing import pack, unpack

__all__ = [
    "AVERAGE",
    "Checkpoint",
    "DamagedError",
    "OtherRunError",
    "Stateful",
    "digest_of",
    "read_manifest",
    "read_state",
    "recover",
    "remove_folder",
    "write_checkpoint",
]

AVERAGE = "average."
"""What the names of averaged weights begin with."""

_FORMAT = 1
_WEIGHTS, _TRAINING, _STATE = "weights.safetensors", "training.safetensors", "state.json"
_MANIFEST = "manifest.json"
_NEW, _REPLACED, _REMOVED = ".tmp", ".old.tmp", ".gone.tmp"  # what names aside end with
_CONFIG = "config"  # the entry of the state with the text of the run's configuration
_MISSING = object()
_REST = "training"  # the entry of the state with what of the training state is no tensor


@runtime_checkable
class Stateful(Protocol):
    """What a checkpoint holds: a module, an objective, an optimizer."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return its state by name."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Take on a state."""


class DamagedError(ValueError):
    """A checkpoint whose files are not those that were written, or of another run."""


class OtherRunError(DamagedError):
    """A checkpoint that is whole, and of another configuration than its folder has.

    Attributes:
        config: the content of ``config.json`` when it was written; None if it is not known.
    """

    def __init__(self, message: str, config: str | None) -> None:
        super().__init__(message)
        self.config = config


@final
@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is whole and of its run.

    Attributes:
        path: its folder.
        state: what it says of itself in JSON, such as its step.
        digest: a name of its weights and its run.
    """

    path: Path
    state: dict[str, Any]
    digest: str
    _manifest: dict[str, Any] = field(repr=False)

    @classmethod
    def read(cls, path: Path, run: str) -> "Checkpoint":
        """Return the checkpoint in a folder after a look at all its bytes.

        Raises:
            DamagedError: if files differ from what was written, or are of another run.
        """
        found = cls.whole(path)
        if found._manifest["run"] != run:
            raise OtherRunError(
                f"a checkpoint must be of the run in whose folder it lies, and {path} is of run "
                f"{found._manifest['run']}, not of {run}",
                found.config,
            )
        return found

    @classmethod
    def whole(cls, path: Path) -> "Checkpoint":
        """Return the checkpoint in a folder, of whatever run, after a look at all its bytes.

        Raises:
            DamagedError: if files differ from what was written.
        """
        manifest = read_manifest(path)
        for name in (_WEIGHTS, _TRAINING):
            _read(path, name, manifest)
        state = read_state(path, manifest)
        if int(path.name) != state["step"]:
            raise DamagedError(
                f"a checkpoint must lie under its step, and {path} is of step {state['step']}"
            )
        return cls(path, state, digest_of(manifest), manifest)

    @property
    def step(self) -> int:
        """After how many steps it was written."""
        step: int = self.state["step"]
        return step

    @property
    def config(self) -> str | None:
        """The content of ``config.json`` in training; None if an earlier version wrote it."""
        config: str | None = self.state.get(_CONFIG)
        return config

    @property
    def averaged(self) -> bool:
        """Whether it has a moving average of weights."""
        with safe_open(self.path / _WEIGHTS, "pt") as file:
            return any(name.startswith(AVERAGE) for name in file.keys())  # noqa: SIM118  # no dict

    def load(self, modules: Mapping[str, Stateful], *, weights: str = "raw") -> None:
        """Load its tensors into modules and objectives of the names that they were saved by.

        Args:
            modules: by name, such as ``model`` and ``guide``.
            weights: ``"raw"``, as training left them, or ``"average"``, their moving average.

        Raises:
            ValueError: if it has no average, or the weights' name is none of the two.
        """
        if weights not in ("raw", "average"):
            raise ValueError(f"weights must be 'raw' or 'average', got {weights!r}")
        found = _tensors(self.path, _WEIGHTS, self._manifest)
        start = AVERAGE if weights == "average" else ""
        if start and not any(key.startswith(start) for key in found):
            raise ValueError(
                f"{self.path} has no average of weights; take 'raw' weights, or train with an "
                "average_decay"
            )
        for name, module in modules.items():
            prefix = f"{start}{name}."
            own = {k.removeprefix(prefix): t for k, t in found.items() if k.startswith(prefix)}
            module.load_state_dict(own)

    def training(self) -> dict[str, Any]:
        """Return what a resumed run needs beside the weights; empty if none was saved."""
        tensors = _tensors(self.path, _TRAINING, self._manifest)
        rest = json.loads(_read(self.path, _STATE, self._manifest))[_REST]
        state: dict[str, Any] = unpack(tensors, rest)
        return state


def write_checkpoint(
    path: Path,
    modules: Mapping[str, Stateful],
    *,
    run: str,
    config: str,
    state: Mapping[str, Any],
    training: Mapping[str, Any],
) -> None:
    """Write a checkpoint into a folder, in place of what is there, whole or not at all.

    Raises:
        OSError: if it cannot be written; nothing is left of it then.
    """
    tensors, rest = pack(training)
    weights = {
        f"{name}.{key}": tensor.detach().clone().contiguous()
        for name, module in modules.items()
        for key, tensor in module.state_dict().items()
    }
    files = {
        _WEIGHTS: save(weights),
        _TRAINING: save(tensors),
        _STATE: _json({**state, _CONFIG: config, _REST: rest}),
    }
    make_folder(path.parent)
    temporary, replaced = _aside(path, _NEW), _aside(path, _REPLACED)
    remedy = "what was written before is whole; free space, and go on with dpvae train --resume"
    try:
        with refusing(path, remedy=remedy):
            temporary.mkdir()
            for name, content in files.items():
                write_synced(temporary / name, content)
            write_synced(temporary / _MANIFEST, _manifest(run, files))
            sync_folder(temporary)
            if path.exists():
                path.rename(replaced)
            temporary.rename(path)
            sync_folder(path.parent)
    finally:
        if replaced.exists() and not path.exists():
            replaced.rename(path)
        for folder in (temporary, replaced):
            shutil.rmtree(folder, ignore_errors=True)


def recover(folder: Path) -> None:
    """Put back checkpoints whose replacement was killed, and remove what else writes have left."""
    for replaced in sorted(folder.glob(f".*{_REPLACED}")):
        path = folder / replaced.name.split(".")[1]
        if not path.exists():
            with refusing(path):
                replaced.rename(path)
    for left in folder.glob(f".*{_NEW}"):
        shutil.rmtree(left, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a checkpoint such that a reader sees all of it or nothing."""
    removed = _aside(path, _REMOVED)
    with refusing(path):
        path.rename(removed)
        if not removed.is_dir():
            removed.unlink()
    shutil.rmtree(removed, ignore_errors=True)


def _aside(path: Path, end: str) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}{end}")


def _manifest(run: str, files: Mapping[str, bytes]) -> bytes:
    entries = {
        "format": _FORMAT,
        "run": run,
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        },
    }
    return _signed(entries)


def _signed(entries: Mapping[str, Any]) -> bytes:
    return _json({**entries, "sha256": hashlib.sha256(_json(entries)).hexdigest()})


def read_manifest(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says of its files.

    Raises:
        DamagedError: if it is not what was written, or of another format.
    """
    content = _content(path, _MANIFEST)
    try:
        manifest = parsed_object(content)
        own = {key: value for key, value in manifest.items() if key != "sha256"}
        as_written = _signed(own) == content
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged: {_MANIFEST} is not what was written") from error
    if not as_written:
        raise DamagedError(f"{path} is damaged: {_MANIFEST} is not what was written")
    if own.get("format") != _FORMAT:
        raise DamagedError(
            f"{path} has the format {own.get('format')}, and this version reads format {_FORMAT}"
        )
    files = own.get("files")
    if not (isinstance(own.get("run"), str) and isinstance(files, dict)) or not all(
        isinstance(files.get(name), dict) and {"bytes", "sha256"} <= files[name].keys()
        for name in (_WEIGHTS, _TRAINING, _STATE)
    ):
        raise DamagedError(
            f"{path} is damaged: {_MANIFEST} must name the run and the bytes and sha256 of its "
            "files, and does not"
        )
    return own


def read_state(path: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint says of itself in JSON.

    Raises:
        DamagedError: if it is not what was written.
    """
    try:
        state = parsed_object(_read(path, _STATE, manifest))
    except DamagedError:
        raise
    except ValueError as error:
        raise DamagedError(f"{path} is damaged: {_STATE} is no JSON object") from error
    if not isinstance(state.get("step"), int) or state.pop(_REST, _MISSING) is _MISSING:
        raise DamagedError(f"{path} is damaged: {_STATE} must have step and {_REST}")
    return state


def _read(path: Path, name: str, manifest: Mapping[str, Any]) -> bytes:
    expected = manifest["files"][name]
    content = _content(path, name)
    if len(content) != expected["bytes"]:
        raise DamagedError(
            f"{path} is damaged: {name} has {len(content)} bytes of the {expected['bytes']} "
            "written"
        )
    if hashlib.sha256(content).hexdigest() != expected["sha256"]:
        raise DamagedError(f"{path} is damaged: {name} is not what was written")
    return content


def _content(path: Path, name: str) -> bytes:
    try:
        return (path / name).read_bytes()
    except FileNotFoundError as error:
        raise DamagedError(f"{path} is damaged: it has no {name}") from error
    except (IsADirectoryError, NotADirectoryError) as error:
        raise DamagedError(
            f"{path} is damaged: it must be a folder with the file {name}, and the system says "
            f"{str(error.strerror).lower()}"
        ) from error


def _tensors(path: Path, name: str, manifest: Mapping[str, Any]) -> dict[str, Tensor]:
    try:
        return load(_read(path, name, manifest))
    except SafetensorError as error:
        raise DamagedError(f"{path} is damaged: {name} is no safetensors file") from error


def digest_of(manifest: Mapping[str, Any]) -> str:
    """Return a name of a checkpoint's weights and its run."""
    name = manifest["files"][_WEIGHTS]["sha256"] + manifest["run"]
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=1, allow_nan=False).encode()
