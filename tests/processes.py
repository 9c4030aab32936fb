"""A function on several ranks: forked processes that share a gloo group."""

import os
import pickle
import traceback
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.waiting import TIME_LIMIT


def on_ranks(count: int, function: Callable[[], Any], folder: Path) -> list[Any]:
    """Return what a function returns on each rank; of one that fails, raise its traceback."""
    # Optimizers import it, which takes seconds: once here, or anew in each rank.
    import_module("torch._dynamo")
    context = get_context("fork")
    store = folder / "store"
    store.unlink(missing_ok=True)
    pipes = [context.Pipe(duplex=False) for _ in range(count)]

    def run(rank: int) -> None:
        try:
            torch.set_num_threads(1)
            dist.init_process_group(
                "gloo",
                store=dist.FileStore(str(store), count),
                rank=rank,
                world_size=count,
                timeout=timedelta(seconds=TIME_LIMIT),
            )
            found = "result", function()
        except BaseException:
            found = "failure", traceback.format_exc()
        # Not by send, which passes tensors on by processes that are to stay.
        pipes[rank][1].send_bytes(pickle.dumps(found))
        os._exit(0)

    processes = [context.Process(target=run, args=(rank,)) for rank in range(count)]
    for process in processes:
        process.start()
    try:
        found = []
        for rank, (reader, _) in enumerate(pipes):
            assert wait([reader, processes[rank].sentinel], TIME_LIMIT), f"rank {rank} hangs"
            assert reader.poll(), f"rank {rank} ended with status {processes[rank].exitcode}"
            kind, value = pickle.loads(reader.recv_bytes())
            assert kind == "result", value
            found.append(value)
        return found
    finally:
        for process in processes:
            process.kill()
            process.join()
