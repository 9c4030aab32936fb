"""Runs trained and evaluated side by side, each in a process of its own; what is done is kept."""

import math
import os
import resource
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from tqdm import tqdm

from pyro_dpvae._files import make_folder
from pyro_dpvae.cli import main
from pyro_dpvae.reproduction import measured
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.training.interrupts import Interrupts

__all__ = ["Failure", "Job", "default_jobs", "finished", "run_jobs", "seconds_of"]

_DONE = "job.json"
_ATTEMPT = "----"  # what the line begins with that stands before each attempt in a log
_INTERVAL = 0.5  # seconds between looks at what the processes do
_PATIENCE = 60  # seconds for the end of a process that another command has left behind
_ON_GPU = 12
# A step of these systems is too small for several threads, and the number of threads decides how
# sums are rounded; bars are for logs here.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TQDM_MININTERVAL": "30"}
_START = "spawn"  # how processes start: fork would take CUDA's state along


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run that is to be trained and then evaluated, by the commands that a user would give.

    Attributes:
        name: what it is called, and its log.
        run: its folder.
        steps: how many steps it has in the end.
        train: arguments of ``dpvae train`` that make it this run, steps among them.
        evaluate: arguments of ``dpvae evaluate`` behind the folder; None does not evaluate.
        numbers: by group, what its metrics are to be measured with.
        place: arguments of both for where it runs, such as ``--device``, which may change.
    """

    name: str
    run: Path
    steps: int
    train: tuple[str, ...]
    evaluate: tuple[str, ...] | None = None
    numbers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    place: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A job that has failed.

    Attributes:
        name: of the job.
        status: the exit status of its process, or minus the signal that killed it.
        log: what it wrote.
        reason: the last line of that, behind the signal, if there is one.
    """

    name: str
    status: int
    log: Path
    reason: str


def default_jobs(device: torch.device) -> int:
    """Return how many jobs a device takes at once: one per processor, or twelve on a GPU."""
    if device.type == "cuda":
        return _ON_GPU
    if hasattr(os, "sched_getaffinity"):  # the system says which ones this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_jobs(jobs: Sequence[Job], *, at_once: int, logs: Path) -> list[Failure]:
    """Do jobs to their end, under a bar that counts steps.

    Each runs in a process of its own, with one thread. What is finished is not started again, and
    what was interrupted goes on where it was. A job that fails takes no other one along. On Ctrl-C
    and SIGTERM the processes write checkpoints and end, as they do when this process dies.

    Args:
        jobs: what is to be done, in this order.
        at_once: how many processes there are at a time.
        logs: the folder of what they write, a file for each job.

    Returns:
        Those that have failed, in the order of the jobs.

    Raises:
        KeyboardInterrupt: if a signal came, with its number, when the processes have ended.
    """
    make_folder(logs)
    waiting = deque(job for job in jobs if not finished(job))
    working: dict[BaseProcess, Job] = {}
    failures: list[Failure] = []
    total, done = sum(job.steps for job in jobs), sum(map(_reached, jobs))
    bar = tqdm(total=total, initial=done, unit="step", desc=f"{len(jobs)} runs")
    with Interrupts() as interrupts, bar:
        try:
            while (waiting or working) and interrupts.signal is None:
                while waiting and len(working) < at_once:
                    job = waiting.popleft()
                    working[_started(job, _log(logs, job))] = job
                wait([process.sentinel for process in working], _INTERVAL)
                for process in [one for one in working if not one.is_alive()]:
                    job = working.pop(process)
                    if process.exitcode:
                        log, status = _log(logs, job), process.exitcode
                        failures.append(Failure(job.name, status, log, _reason(log, status)))
                if taken := sum(map(_reached, jobs)) - bar.n:
                    bar.update(taken)
            for process in working:
                process.terminate()
            for process in working:
                process.join()
        finally:  # a second signal comes through here
            for process in working:
                process.kill()
    if interrupts.signal is not None:
        raise KeyboardInterrupt(interrupts.signal)
    order = [job.name for job in jobs]
    return sorted(failures, key=lambda failure: order.index(failure.name))


def finished(job: Job) -> bool:
    """Return whether a job has nothing left to do: all steps taken and all numbers measured."""
    run = RunFolder(job.run)
    with suppress(ValueError):  # whatever is damaged is said by the job itself
        done = run.read(_DONE)
        return (
            done.get("asked") == _asked(job)
            and run.steps()[-1:] == [job.steps]
            and done.get("checkpoint") in run.digests()
            and (job.evaluate is None or bool(measured(run, job.numbers)))
        )
    return False


def seconds_of(job: Job) -> dict[str, float]:
    """Return the processor seconds that a job has taken by command, but for killed processes."""
    with suppress(ValueError):
        seconds = RunFolder(job.run).read(_DONE).get("seconds")
        if isinstance(seconds, Mapping):
            return {
                key: one
                for key, one in seconds.items()
                if isinstance(one, int | float) and math.isfinite(one)
            }
    return {}


def _asked(job: Job) -> dict[str, Any]:
    evaluate = None if job.evaluate is None else list(job.evaluate)
    return {"train": list(job.train), "evaluate": evaluate}


def _started(job: Job, log: Path) -> BaseProcess:
    context: Any = get_context(_START)
    process: BaseProcess = context.Process(target=_work, args=(job, log), name=job.name)
    with log.open("a") as file:
        file.write(f"{_ATTEMPT} {job.name}\n")
    with _environment(_ENVIRONMENT), _without_ctrl_c():
        process.start()
    return process


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Ignore Ctrl-C, as processes that start in here do until they decide what it does.

    Else it would print where a process that still imports has come.
    """
    if threading.current_thread() is not threading.main_thread():  # which may not say so
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _environment(changed: Mapping[str, str]) -> Iterator[None]:
    """Have other variables in the environment, which processes that start in here take over."""
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(job: Job, log: Path) -> None:
    """Do a job in a process of its own; its exit status is that of the commands."""
    # Ctrl-C goes to all processes of a terminal's session; here the parent says what to do.
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    file = log.open("a", buffering=1)
    for descriptor in (1, 2):
        os.dup2(file.fileno(), descriptor)
    sys.stdout = sys.stderr = file
    sys.exit(_commands(job))


def _interrupt(number: int, _frame: FrameType | None) -> None:
    # Not the system's way: then nothing would be tidied up.
    raise KeyboardInterrupt(number)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _commands(job: Job) -> int:
    """Train and evaluate; returns the exit status."""
    run, seconds = RunFolder(job.run), seconds_of(job)
    _wait_for_lock(run)
    commands = {"train": ["train", "--resume", str(job.run), *job.train, *job.place]}
    if job.evaluate is not None:
        commands["evaluate"] = ["evaluate", str(job.run), *job.evaluate, *job.place]
    status = 0
    for name, arguments in commands.items():
        before = _processor_seconds()
        status = main(arguments)
        taken = _processor_seconds() - before
        seconds[name] = round(seconds.get(name, 0.0) + taken, 1)
        if status:
            break
    if run.exists:
        done = {"asked": _asked(job), "checkpoint": run.checkpoint().digest} if not status else {}
        run.write(_DONE, {**done, "seconds": seconds})
    return status


def _wait_for_lock(run: RunFolder) -> None:
    """Wait for a process that has lost its parent, and writes its checkpoint, to end."""
    for _ in range(_PATIENCE):
        with suppress(BlockingIOError), run.locked():
            return
        time.sleep(1)


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _reached(job: Job) -> int:
    return min(RunFolder(job.run).last_step, job.steps)


def _log(logs: Path, job: Job) -> Path:
    return logs / f"{job.name.replace('/', '-')}.log"


def _reason(log: Path, status: int) -> str:
    """Return what a log says last of its last attempt, and the signal that ended it."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    said = "" if last.startswith(_ATTEMPT) else last
    if status >= 0:
        return said or "it has said nothing"
    killed = f"killed by {signal.Signals(-status).name}"
    return f"{killed}, having said: {said}" if said else killed
