"""Children of the test process, to be killed: what they have not written is lost."""

import os
import pkgutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from importlib import import_module

import torch

from pyro_dpvae import cli

# What commands import when they run: once, and not in every child.
for _package in (cli, import_module("pyro_dpvae.cli.options")):
    for _module in pkgutil.iter_modules(_package.__path__, f"{_package.__name__}."):
        import_module(_module.name)
for _name in ("cluster", "datasets", "linear_model", "neighbors", "pipeline"):
    import_module(f"sklearn.{_name}")

TIME_LIMIT = 300  # seconds, so that a hang fails


def fork(work: Callable[[], object]) -> int:
    """Start a child that works and ends with status 0, or 1 if it fails; returns its id."""
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which stand still here
        child = os.fork()
    if child:
        return child
    try:
        signal.alarm(TIME_LIMIT)
        torch.set_num_threads(1)
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    raise AssertionError("not reached")


def end_of(child: int) -> int:
    """Wait for a child; returns its exit status, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def wait_for(condition: Callable[[], bool], child: int) -> None:
    """Wait until a child has brought something about; fails if it ends before."""
    while not condition():
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        assert ended is None or condition(), "the child has ended"
        time.sleep(0.005)
