"""Commands in forked children, which cost no start of Python, and their ends."""

import contextlib
import os
import signal
import time
import traceback
import warnings
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import RLock

from tqdm import tqdm

from pyro_dpvae.cli import main as dpvae

__all__ = ["Child", "End", "end", "outlive", "start"]

# Once here, so that no child imports what its command needs.
for _name in ("train_options", "train", "evaluate"):
    import_module(f"pyro_dpvae.cli.{_name}")

# Else a child that is killed while it draws a bar keeps the lock that all processes' bars take.
os.register_at_fork(after_in_child=lambda: tqdm.set_lock(RLock()))

_POLL = 0.002  # seconds


@dataclass(frozen=True)
class Child:
    """A process that runs a command.

    Attributes:
        process: its id.
        log: the file that has what it says.
        told: how many bytes were there before.
    """

    process: int
    log: Path
    told: int = 0

    @property
    def talks(self) -> bool:
        """Whether it has said something: a training does, once all is built and checked."""
        return self.log.exists() and self.log.stat().st_size > self.told


@dataclass(frozen=True)
class End:
    """How a child ended.

    Attributes:
        status: the exit status; that of a signal is its number, negative.
        peak: the largest memory that the process ever had resident, in MiB.
        message: the last line that it said.
        in_writing: whether it was killed because a checkpoint was being written.
    """

    status: int
    peak: float
    message: str
    in_writing: bool = False

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.status == -signal.SIGKILL


def start(arguments: list[str], log: Path) -> Child:
    """Run a ``dpvae`` command in a child of this process, which has everything imported."""
    log.parent.mkdir(parents=True, exist_ok=True)
    told = log.stat().st_size if log.exists() else 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which stand still here
        process = os.fork()
    if process:
        return Child(process, log, told)
    # Nothing of the parent's may run at the child's end: neither its handlers nor its buffers.
    status = 70
    try:
        warnings.simplefilter("default")  # as users have them, whatever a test makes of them
        os.setsid()  # Ctrl-C is for the soak, which ends its children itself
        with log.open("a", buffering=1) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                try:
                    status = dpvae(arguments)
                except SystemExit as ended:
                    status = ended.code if isinstance(ended.code, int) else 70
                except BaseException:
                    traceback.print_exc()
    finally:
        os._exit(status)


def end(child: Child) -> End:
    """Wait for a child's end."""
    return outlive(child, seconds=None, watched=None, delay=0.0)


def outlive(
    child: Child, *, seconds: float | None, watched: Path | None, delay: float, early: bool = False
) -> End:
    """Wait for a child's end, and kill it if it takes too long.

    Args:
        child: the process.
        seconds: after which it is killed; None lets it live.
        watched: the folder of checkpoints, where it is killed while one is being written, the
            first after the seconds; None kills at once.
        delay: the seconds from when a checkpoint is begun to the kill.
        early: whether the seconds count from its start, and not from when it begins to train.
    """
    since = time.monotonic()
    in_writing = False
    try:
        while True:
            process, status, usage = os.wait4(child.process, os.WNOHANG)
            if process:
                break
            if not (early or child.talks):
                since = time.monotonic()
            elif (
                seconds is not None
                and time.monotonic() - since > seconds
                and (watched is None or _being_written(watched))
            ):
                in_writing = watched is not None
                time.sleep(delay if in_writing else 0)
                os.kill(child.process, signal.SIGKILL)
                _, status, usage = os.wait4(child.process, 0)
                break
            time.sleep(_POLL)
    except BaseException:  # the soak is interrupted: nothing of it stays behind
        os.kill(child.process, signal.SIGKILL)
        os.wait4(child.process, 0)
        raise
    lines = child.log.read_text(errors="replace").splitlines() or [""]
    code = os.waitstatus_to_exitcode(status)
    return End(code, usage.ru_maxrss / 1024, lines[-1][-500:], in_writing)


def _being_written(folder: Path) -> bool:
    """Whether there is, beside the checkpoints, the temporary file of the next."""
    with contextlib.suppress(FileNotFoundError):
        return any(name.endswith(".tmp") for name in os.listdir(folder))
    return False
