"""Checkpoints: safetensors files, written atomically and verified when read."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

from safetensors.torch import load, save
from torch import Tensor

from pyro_dpvae._files import write_whole
from pyro_dpvae.errors import CheckpointError
from pyro_dpvae.runs.identity import parsed_object, run_id
from pyro_dpvae.runs.packing import pack, unpack

__all__ = ["AVERAGE", "SUFFIX", "Checkpoint", "Stateful", "write_checkpoint"]

AVERAGE = "average."
"""Prefix of the names of averaged weights."""

SUFFIX = ".safetensors"

_FORMAT = "2"
_WEIGHTS, _TRAINING = "weights.", "training."  # prefixes of tensor names
# The digest of all other bytes of the file; quotes in texts of the header are escaped.
_SEAL = re.compile(rb'"sha256":"([0-9a-f]{64})"')
_BLANK = "0" * 64


@runtime_checkable
class Stateful(Protocol):
    """An object with a state in a checkpoint: a module, an objective, an optimizer."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the state by name."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Load a state."""


@final
@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose bytes have been verified.

    Attributes:
        path: its file.
        config: the content of ``config.json`` at that time, which identifies the run.
        state: further values in JSON, such as the step.
        digest: a digest of weights and run.
        averaged: whether it contains a moving average of weights.
    """

    path: Path
    config: str = field(repr=False)
    state: dict[str, Any]
    digest: str
    averaged: bool
    _training: str = field(repr=False)
    _sha256: str = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> "Checkpoint":
        """Read a checkpoint and verify all its bytes.

        Raises:
            CheckpointError: if the file is damaged, or its name is not its step.
        """
        header, _ = _read(path)
        entries = header["__metadata__"]
        state = json.loads(entries["state"])
        if path.stem != f"{state['step']:09d}":
            raise CheckpointError(
                f"a checkpoint's file name must be its step, but {path} is of step "
                f"{state['step']}; rename it"
            )
        return cls(
            path,
            config=entries["config"],
            state=state,
            digest=entries["digest"],
            averaged=any(name.startswith(_WEIGHTS + AVERAGE) for name in header),
            _training=entries["training"],
            _sha256=entries["sha256"],
        )

    @property
    def run(self) -> str:
        """The id of the run that wrote it."""
        return run_id(parsed_object(self.config))

    @property
    def step(self) -> int:
        """The number of training steps before it was written."""
        return self.state["step"]

    def load(self, modules: Mapping[str, Stateful], *, weights: str = "raw") -> None:
        """Load the tensors into modules and objectives, by the names under which they were saved.

        Args:
            modules: the modules by name, such as ``model`` and ``guide``.
            weights: ``"raw"``, or ``"average"`` for the moving average.

        Raises:
            ValueError: for other ``weights``, or if there is no average.
        """
        if weights not in ("raw", "average"):
            raise ValueError(f"weights must be 'raw' or 'average', got {weights!r}")
        if weights == "average" and not self.averaged:
            raise CheckpointError(
                f"{self.path} has no average of weights; use 'raw' weights, or train with "
                "average_decay"
            )
        found = self._tensors(_WEIGHTS + (AVERAGE if weights == "average" else ""))
        for name, module in modules.items():
            prefix = f"{name}."
            own = {k.removeprefix(prefix): t for k, t in found.items() if k.startswith(prefix)}
            module.load_state_dict(own)

    def training(self) -> dict[str, Any]:
        """Return the further training state, or an empty one if none was saved."""
        return unpack(self._tensors(_TRAINING), json.loads(self._training))

    def _tensors(self, prefix: str) -> dict[str, Tensor]:
        header, content = _read(self.path)
        if header["__metadata__"]["sha256"] != self._sha256:
            raise CheckpointError(
                f"{self.path} has been replaced since it was opened; open the checkpoint again"
            )
        found = load(content)
        return {k.removeprefix(prefix): t for k, t in found.items() if k.startswith(prefix)}


def write_checkpoint(
    path: Path,
    modules: Mapping[str, Stateful],
    *,
    config: str,
    state: Mapping[str, Any],
    training: Mapping[str, Any],
) -> None:
    """Write a checkpoint atomically, replacing an existing file.

    Raises:
        OSError: if it cannot be written; nothing is left of it then.
    """
    packed, rest = pack(training)
    tensors = {
        f"{_WEIGHTS}{name}.{key}": tensor.detach().clone().contiguous()
        for name, module in modules.items()
        for key, tensor in module.state_dict().items()
    }
    digest = hashlib.sha256(run_id(parsed_object(config)).encode())
    for name in sorted(tensors):
        digest.update(save({name: tensors[name]}))
    entries = {
        "format": _FORMAT,
        "config": config,
        "state": json.dumps(state, allow_nan=False),
        "training": json.dumps(rest, allow_nan=False),
        "digest": digest.hexdigest()[:12],
        "sha256": _BLANK,
    }
    tensors.update((_TRAINING + name, tensor) for name, tensor in packed.items())
    content = bytearray(save(tensors, entries))
    seal = _SEAL.search(content)
    assert seal is not None
    content[slice(*seal.span(1))] = hashlib.sha256(content).hexdigest().encode()
    remedy = "earlier checkpoints are undamaged; free space, and resume with dpvae train --resume"
    write_whole(path, content, remedy=remedy)


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return the header of a checkpoint and all its bytes, after verification."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        reason = str(error.strerror).lower()
        raise CheckpointError(
            f"{path} is damaged: a checkpoint must be a file, got the error {reason!r}"
        ) from error
    seal = _SEAL.search(content)
    if seal is None or seal[1].decode() != _digest_but(content, *seal.span(1)):
        raise CheckpointError(f"{path} is damaged: its bytes do not have the stored digest")
    length = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    if (found := header["__metadata__"].get("format")) != _FORMAT:
        raise CheckpointError(
            f"{path} has format {found}, but this version reads format {_FORMAT}"
        )
    return header, content


def _digest_but(content: bytes, begin: int, end: int) -> str:
    """Return the digest of a file, with blanks in place of the stored digest."""
    digest = hashlib.sha256(memoryview(content)[:begin])
    digest.update(_BLANK.encode())
    digest.update(memoryview(content)[end:])
    return digest.hexdigest()
