"""One ``dpvae`` command in a child process that ends when its parent does.

``python -m papers.dpvae.child RUN COMMAND ...`` is ``dpvae COMMAND ...``. Its standard input is a
pipe that the parent holds open: however the parent ends, the pipe closes with it.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from pyro_dpvae import cli
from pyro_dpvae.runs import RunFolder

__all__ = ["main"]

_PATIENCE = 60  # seconds


def main(run: str, command: Sequence[str]) -> int:
    """Run a command; returns its exit status.

    Args:
        run: the run folder that the command works in.
        command: the arguments of ``dpvae``.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _wait_for_lock(RunFolder(Path(run)))
    return cli.main(command)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    # By default the process would end without removing its temporary files.
    raise KeyboardInterrupt(number)


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _wait_for_lock(run: RunFolder) -> None:
    """Wait until a process whose parent was killed has written its last checkpoint here."""
    for _ in range(_PATIENCE):
        try:
            with run.locked():
                return
        except BlockingIOError:
            time.sleep(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
