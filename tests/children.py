"""Children of the test process: forks that may be killed, and ones with memory of their own."""

import faulthandler
import os
import pkgutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from importlib import import_module
from multiprocessing import get_context
from typing import Any

import torch

from pyro_dpvae import cli
from tests.waiting import TIME_LIMIT, wait_until

# What commands import when they run: once, and not in every child.
for _module in pkgutil.iter_modules(cli.__path__, f"{cli.__name__}."):
    import_module(_module.name)
for _name in ("cluster", "datasets", "linear_model", "neighbors", "pipeline"):
    import_module(f"sklearn.{_name}")


def fork(work: Callable[[], object]) -> int:
    """Start a child that works and ends with status 0, or 1 if it fails; returns its id.

    After the time limit the child says where it is and ends, so that waiting for it always ends.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which stand still here
        child = os.fork()
    if child:
        return child
    try:
        faulthandler.register(signal.SIGALRM, file=2, chain=True)  # says where it is, and ends
        signal.alarm(TIME_LIMIT)
        torch.set_num_threads(1)
        work()
        os._exit(0)
    except BaseException:
        with suppress(OSError):  # the limit of a test's files may apply to this text too
            traceback.print_exc()
        os._exit(1)
    raise AssertionError("not reached")


def end_of(child: int) -> int:
    """Wait for a child; returns its exit status, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def wait_for(condition: Callable[[], bool], child: int) -> None:
    """Wait until a child has brought something about; fails if it ends before."""

    def came_true() -> bool:
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if condition():  # tested after the child was, so that what it did last counts
            return True
        assert ended is None, "the child has ended"
        return False

    wait_until(came_true)


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function of a module returns in a process that has run nothing else.

    Its memory has no trace of the tests before. The process is a fork of a server, which has
    imported the library once for all of them.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(
        ["pytest", "torch._dynamo", "pyro_dpvae.recipes", "tests.children"]
    )
    limit = {"initializer": signal.alarm, "initargs": (TIME_LIMIT,)}
    with ProcessPoolExecutor(1, mp_context=context, **limit) as pool:
        return pool.submit(function, *arguments).result()
