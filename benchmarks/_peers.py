"""Other libraries in environments of their own, which take turns with this process on one core."""

import contextlib
import json
import math
import os
import platform
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

__all__ = ["REQUIREMENTS", "Peer", "PeerStep", "cache", "interpreter", "one_core"]

REQUIREMENTS = {
    "numpyro": ("numpyro==0.21.0", "jax==0.10.2", "jaxlib==0.10.2"),
    "pythae": ("pythae==0.1.2",),
}
"""What pip installs for each peer."""

_SHARES_TORCH = ("pythae",)
_SCRIPTS = Path(__file__).parent / "peers"
# A peer has one thread, and nothing of the environment in which the benchmark runs.
_ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
    "PYTHONNOUSERSITE": "1",
}


def cache() -> Path:
    """Return the folder of the environments, below the user's cache."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "pyro_dpvae" / "peers"


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, and those that it starts, on one core, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def interpreter(peer: str, folder: Path) -> Path:
    """Return the Python of a peer's environment, which is created and filled at its first use.

    Args:
        peer: one of ``REQUIREMENTS``.
        folder: where the environments are.

    Raises:
        SystemExit: if pip cannot install the packages.
    """
    place = folder / peer
    python, record = place / "bin" / "python", place / "installed.json"
    shared = [str(Path(torch.__file__).parents[1])] if peer in _SHARES_TORCH else []
    wanted = json.dumps([REQUIREMENTS[peer], platform.python_version(), shared])
    if record.exists() and record.read_text() == wanted:
        return python
    packages = ", ".join(REQUIREMENTS[peer])
    print(f"Installing {packages} into {place}, once", file=sys.stderr, flush=True)
    venv.create(place, clear=True, with_pip=True)
    if shared:  # so that pip finds torch there, and downloads no other
        (site,) = place.glob("lib/python*/site-packages")
        (site / "shared.pth").write_text("\n".join(shared))
    command = [str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS[peer]]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode != 0:
        raise SystemExit(
            f"--peers needs {packages}, but pip could not install it: "
            f"{(ended.stderr.strip().splitlines() or ['no message'])[-1]}; connect to a package "
            "index, or name a folder that has the environments with --environments"
        )
    record.write_text(wanted)
    return python


class Peer:
    """A script of ``benchmarks/peers`` under a peer's interpreter, which answers requests.

    Args:
        python: the interpreter.
        script: its name in the folder, or a path.
        arguments: of the script.
    """

    def __init__(self, python: Path, script: str | Path, *arguments: str | Path) -> None:
        environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        self._process = subprocess.Popen(
            [python, _SCRIPTS / script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environment, **_ENVIRONMENT},
            text=True,
        )
        self._script = script

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes its input, upon which it ends

    def call(self, function: str, **arguments: object) -> Any:
        """Return the result of a function of the script."""
        return self.timed(function, **arguments)[0]

    def timed(self, function: str, **arguments: object) -> tuple[Any, float]:
        """Return a function's result, and the processor seconds that all its threads took.

        Raises:
            RuntimeError: if it raises an error there, or the script has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            print(
                json.dumps({"function": function, "arguments": arguments}),
                file=self._process.stdin,
                flush=True,
            )
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._script} has ended; its messages are above")
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(f"{function} of {self._script} failed:\n{reply['error']}")
        return reply["result"], reply["seconds"]


class PeerStep:
    """A step that a peer takes, for ``ratios``.

    Args:
        peer: which has the function.
        function: takes ``count`` steps and returns a list with one entry each, perhaps more.
        arguments: others of the function.
    """

    def __init__(self, peer: Peer, function: str, **arguments: object) -> None:
        self.peer = peer
        self.function = function
        self.arguments = arguments
        self._seconds = math.inf

    def __call__(self) -> Any:
        """Take a step and return its result."""
        return self.several(1)[0]

    def several(self, count: int) -> list[Any]:
        """Take at least so many steps and return their results."""
        results, seconds = self.peer.timed(self.function, count=count, **self.arguments)
        self._seconds = seconds / len(results)
        return results

    def time(self, seconds: float) -> float:
        """Return the processor seconds of a step, from about as many as fill the given time."""
        self.several(max(1, math.ceil(seconds / max(self._seconds, 1e-9))))
        return self._seconds
