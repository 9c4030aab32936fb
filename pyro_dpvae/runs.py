"""Run folders: config.json, metrics.jsonl and checkpoint/, each written whole or not at all."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

from safetensors.torch import save
from torch import Tensor

from pyro_dpvae._files import make_folder, read_tensors, write_whole

__all__ = ["RunFolder", "Stateful"]

_CONFIG = "config.json"
_METRICS = "metrics.jsonl"
_WEIGHTS = "weights.safetensors"
_STATE = "state.json"


@runtime_checkable
class Stateful(Protocol):
    """What a checkpoint holds: a module, or an objective."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return its tensors by name."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Take on tensors by name."""


@final
class RunFolder:
    """A folder that holds all of one training run.

    It has ``config.json`` (what was trained, as resolved from the command line),
    ``metrics.jsonl`` (a JSON object a line), ``checkpoint/`` (the weights as safetensors, their
    step as JSON) and, once measured, ``evaluation.json``. Nothing in it is ever unpickled.

    Use :meth:`create` for a new run and :meth:`open` for one that exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any]) -> "RunFolder":
        """Make the folder and write its configuration.

        Raises:
            FileExistsError: if a run is there already.
            NotADirectoryError: if the path is a file, or leads through one.
        """
        run = cls(Path(path))
        if (run.path / _CONFIG).exists():
            raise FileExistsError(
                f"a run folder is written once, and {run.path} holds a run already; "
                "name another with --out, or remove it"
            )
        make_folder(run.path)
        write_whole(run.path / _CONFIG, json.dumps(config, indent=2).encode())
        return run

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """Return the run in a folder.

        Raises:
            FileNotFoundError: if no run with a checkpoint is there.
        """
        run = cls(Path(path))
        for name in (_CONFIG, f"checkpoint/{_STATE}"):
            if not (run.path / name).exists():
                raise FileNotFoundError(
                    f"a run folder holds {name}, and {run.path} does not; "
                    "give the folder that 'dpvae train --out' wrote"
                )
        return run

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the run."""
        return json.loads((self.path / _CONFIG).read_text())

    @property
    def state(self) -> dict[str, Any]:
        """What the checkpoint says of itself, such as its step."""
        return json.loads((self.path / "checkpoint" / _STATE).read_text())

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
            content = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} must be JSON, got {error}; remove it") from error
        if not isinstance(content, dict):
            raise ValueError(f"{path} must hold a JSON object, got {content!r}; remove it")
        return content

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write a safetensors file of the folder."""
        write_whole(self.path / name, save({key: t.contiguous() for key, t in tensors.items()}))

    def read_tensors(self, name: str) -> dict[str, Tensor]:
        """Return a safetensors file of the folder, empty if it is not there."""
        path = self.path / name
        return read_tensors(path) if path.exists() else {}

    @property
    def digest(self) -> str:
        """A name of the checkpoint's weights and of the configuration."""
        weights = (self.path / "checkpoint" / _WEIGHTS).read_bytes()
        return hashlib.sha256(weights + (self.path / _CONFIG).read_bytes()).hexdigest()[:12]

    def log(self, record: Mapping[str, Any]) -> None:
        """Add a record to the metrics."""
        with (self.path / _METRICS).open("a") as file:
            file.write(json.dumps(record) + "\n")

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the records of the metrics."""
        with (self.path / _METRICS).open() as file:
            yield from map(json.loads, file)

    def save(self, modules: Mapping[str, Stateful], state: Mapping[str, Any]) -> None:
        """Write a checkpoint: the tensors of modules and objectives, then the state."""
        folder = self.path / "checkpoint"
        folder.mkdir(exist_ok=True)
        weights = {
            f"{name}.{key}": tensor.detach().clone().contiguous()
            for name, module in modules.items()
            for key, tensor in module.state_dict().items()
        }
        write_whole(folder / _WEIGHTS, save(weights))
        write_whole(folder / _STATE, json.dumps(dict(state), indent=2).encode())

    def load(self, modules: Mapping[str, Stateful]) -> None:
        """Load the checkpoint's tensors into modules and objectives of the same names."""
        weights = read_tensors(self.path / "checkpoint" / _WEIGHTS)
        for name, module in modules.items():
            prefix = f"{name}."
            module.load_state_dict(
                {
                    key.removeprefix(prefix): tensor
                    for key, tensor in weights.items()
                    if key.startswith(prefix)
                }
            )
