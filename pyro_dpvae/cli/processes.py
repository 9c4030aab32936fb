"""The processes of torchrun as ranks of one command."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store
from torch.distributed.rendezvous import rendezvous

from pyro_dpvae._ranks import ranks

__all__ = ["ended_elsewhere", "first_to_fail", "joined"]

# Rank zero may write checkpoints, train a domain network or compile while others wait.
_PATIENCE = timedelta(hours=2)


@contextmanager
def joined() -> Iterator[None]:
    """Join the process group of torchrun, if there is one; only rank zero prints.

    Tensors on CPUs are exchanged by gloo, those on GPUs by NCCL.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, rank, count = next(rendezvous("env://", timeout=_PATIENCE))
    # After a restart the store still holds the addresses of the killed processes.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"pyro_dpvae/{attempt}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_PATIENCE)
    with ExitStack() as stack:
        if ranks().index:
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        yield
    # Not after an exception: other processes may never answer.
    dist.destroy_process_group()


def first_to_fail() -> bool:
    """Return whether this process is the first to fail, so that only one prints the error."""
    if ranks().count == 1:
        return True
    try:
        return _get_default_store().add("failed", 1) == 1
    except RuntimeError:  # the store has gone with the process that failed first
        return False


def ended_elsewhere(error: BaseException) -> bool:
    """Return whether an error means that another process of the command has stopped."""
    signs = ("gloo", "nccl", "connection closed", "connection reset", "connection refused")
    return ranks().count > 1 and (
        isinstance(error, dist.DistError) or any(sign in str(error).lower() for sign in signs)
    )
