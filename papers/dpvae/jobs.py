"""A pool of ``dpvae train`` and ``dpvae evaluate`` processes; finished jobs are not repeated."""

import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from papers.dpvae.results import measured
from pyro_dpvae._bars import bar as progress_bar
from pyro_dpvae._files import make_folder, write_whole
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.training.interrupts import Interrupts

__all__ = ["Failure", "Job", "default_jobs", "finished", "run_jobs", "seconds_of"]

_LOGS, _TIMES = "logs", "times.json"
_ATTEMPT = "----"  # begins the line in a log that precedes each process
_INTERVAL = 0.2  # seconds between two looks at the processes
_ON_GPU = 12
_CHILD = (sys.executable, "-m", "papers.dpvae.child")
# A step of these systems is too small for several threads, and the number of threads decides how
# sums are rounded. Progress bars go to logs here.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "TQDM_MININTERVAL": "30"}


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run to train and then to evaluate, with the commands that a user would type.

    Attributes:
        name: the name of the job and of its log.
        run: the run folder.
        steps: the total number of training steps.
        train: arguments of ``dpvae train``, with the number of steps.
        evaluate: arguments of ``dpvae evaluate`` after the run folder; None skips the evaluation.
        numbers: by group of metrics, the settings to measure them with.
        place: arguments of both commands that say where they run, such as ``--device``; they may
            change between two attempts.
    """

    name: str
    run: Path
    steps: int
    train: tuple[str, ...]
    evaluate: tuple[str, ...] | None = None
    numbers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    place: tuple[str, ...] = ()

    def commands(self) -> Iterator[tuple[str, ...]]:
        """Yield the arguments of ``dpvae`` for each command, in order."""
        yield "train", "--resume", str(self.run), *self.train, *self.place
        if self.evaluate is not None:
            yield "evaluate", str(self.run), *self.evaluate, *self.place


@dataclass(frozen=True)
class Failure:
    """A job that failed.

    Attributes:
        name: the name of the job.
        status: the exit status of its process, or minus the number of the signal that killed it.
        log: the file with the output of its processes.
        reason: the signal, if there is one, and the last line of the log.
    """

    name: str
    status: int
    log: Path
    reason: str


class _Process:
    """A process that works on a job, of which it does the first of the commands that are left."""

    def __init__(self, job: Job, commands: Sequence[tuple[str, ...]], log: Path) -> None:
        self.job, self.log = job, log
        self.command, *self.rest = commands
        self.seconds = 0.0
        with log.open("a") as file:
            file.write(f"{_ATTEMPT} dpvae {shlex.join(self.command)}\n")
            file.flush()
            self.popen = subprocess.Popen(
                [*_CHILD, str(job.run), *self.command],
                env={**os.environ, **_ENVIRONMENT},
                stdin=subprocess.PIPE,  # which closes when this process ends
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in a terminal reaches this process alone
            )

    def ended(self, *, wait: bool = False) -> bool:
        """Return whether the process has ended, after waiting for its end if asked to."""
        # Popen has no processor times.
        pid, status, usage = os.wait4(self.popen.pid, 0 if wait else os.WNOHANG)
        if pid:
            self.popen.returncode = os.waitstatus_to_exitcode(status)
            self.seconds = usage.ru_utime + usage.ru_stime
            assert self.popen.stdin is not None
            self.popen.stdin.close()
        return pid != 0

    def signal(self, number: int) -> None:
        """Send a signal, unless the process has been waited for."""
        with suppress(ProcessLookupError):
            os.kill(self.popen.pid, number)  # Popen would wait for a process that has ended


def default_jobs(device: torch.device) -> int:
    """Return how many processes a device serves at once: one per processor, twelve on a GPU."""
    if device.type == "cuda":
        return _ON_GPU
    if hasattr(os, "sched_getaffinity"):  # the processors that this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_jobs(jobs: Sequence[Job], *, at_once: int, out: Path) -> list[Failure]:
    """Finish jobs while a progress bar counts their steps.

    Each command runs in a process of its own with one thread. Finished jobs are not started, and
    interrupted ones continue at their last checkpoint. A job that fails does not stop the others.
    On Ctrl-C and SIGTERM, and when this process is killed, the processes write checkpoints and
    end.

    Args:
        jobs: in the order in which they start.
        at_once: the largest number of processes at a time.
        out: the folder in which ``logs/`` holds a file per job and ``times.json`` the processor
            seconds of each command.

    Returns:
        The failures, in the order of the jobs.

    Raises:
        KeyboardInterrupt: with the number of the signal, if one came, after the processes ended.
    """
    make_folder(out / _LOGS)
    waiting = deque((job, [*job.commands()]) for job in jobs if not finished(job))
    working: list[_Process] = []
    failures: dict[str, Failure] = {}
    total, done = sum(job.steps for job in jobs), sum(map(_reached, jobs))
    # Evaluations take time and no steps: only the mean rate says when all is done.
    options: dict[str, Any] = {"initial": done, "unit": "step", "smoothing": 0}
    bar = progress_bar(description=f"{len(jobs)} runs", total=total, **options)
    with Interrupts() as interrupts, bar:
        try:
            while (waiting or working) and interrupts.signal is None:
                while waiting and len(working) < at_once:
                    job, commands = waiting.popleft()
                    log = out / _LOGS / f"{job.name.replace('/', '-')}.log"
                    working.append(_Process(job, commands, log))
                time.sleep(_INTERVAL)
                for process in [one for one in working if one.ended()]:
                    working.remove(process)
                    _add_seconds(out, process)
                    job, status = process.job, process.popen.returncode
                    if status:
                        reason = _reason(process.log, status)
                        failures[job.name] = Failure(job.name, status, process.log, reason)
                    elif process.rest:
                        waiting.appendleft((job, process.rest))
                if taken := sum(map(_reached, jobs)) - bar.n:
                    bar.update(taken)
            for process in working:
                process.signal(signal.SIGTERM)
            while working:
                working[-1].ended(wait=True)
                _add_seconds(out, working.pop())
        finally:  # a second signal arrives here
            for process in working:
                process.signal(signal.SIGKILL)
    if interrupts.signal is not None:
        raise KeyboardInterrupt(interrupts.signal)
    return [failures[job.name] for job in jobs if job.name in failures]


def finished(job: Job) -> bool:
    """Return whether a job has all its steps and all its metrics."""
    run = RunFolder(job.run)
    with suppress(ValueError):  # the process of the job reports damaged files
        return (
            bool(run.steps())
            and run.checkpoint().step == job.steps
            and (job.evaluate is None or bool(measured(run, job.numbers)))
        )
    return False


def seconds_of(out: Path) -> dict[str, dict[str, float]]:
    """Return the processor seconds of each command by job, without processes that were killed."""
    with suppress(OSError, ValueError, TypeError, AttributeError):  # no file, or a damaged one
        return {
            name: {command: float(one) for command, one in seconds.items() if math.isfinite(one)}
            for name, seconds in json.loads((out / _TIMES).read_bytes()).items()
        }
    return {}


def _add_seconds(out: Path, process: _Process) -> None:
    times, command = seconds_of(out), process.command[0]
    of_job = times.setdefault(process.job.name, {})
    of_job[command] = round(of_job.get(command, 0.0) + process.seconds, 1)
    write_whole(out / _TIMES, json.dumps(times, indent=2).encode())


def _reached(job: Job) -> int:
    return min(RunFolder(job.run).last_step, job.steps)


def _reason(log: Path, status: int) -> str:
    """Return the signal that ended a process, and the last line that it wrote to its log."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    said = "" if last.startswith(_ATTEMPT) else last
    if status >= 0:
        return said or "it wrote nothing to its log"
    killed = f"killed by {signal.Signals(-status).name}"
    return f"{killed}; its last message: {said}" if said else killed
