"""Processes of ``papers.dpvae.jobs`` as forks, which have the library imported already."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

from papers.dpvae import child
from tests.children import fork

__all__ = ["ForkedProcess"]

Command = Callable[[str, Sequence[str]], int]


class ForkedProcess:
    """What :class:`subprocess.Popen` is to a job: a process whose standard input is a pipe.

    Its command ends in ``RUN COMMAND ...``, which ``main`` runs.
    """

    main: Command = staticmethod(child.main)
    _pipes: list[int] = []  # ends that later children must not hold open  # noqa: RUF012

    def __init__(
        self, words: Sequence[str], *, env: Mapping[str, str], stdout: BinaryIO, **_options: Any
    ) -> None:
        run, *command = words[3:]  # after: python -m MODULE
        self.returncode: int | None = None
        reading, writing = os.pipe()
        self._pipes.append(writing)

        def work() -> None:
            os.setsid()
            for end in self._pipes:
                os.close(end)
            for number, file in enumerate((reading, stdout.fileno(), stdout.fileno())):
                os.dup2(file, number)
            sys.stdout = sys.stderr = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
            os.environ.update(env)
            os._exit(type(self).main(run, command))

        self.pid = fork(work)
        os.close(reading)
        self.stdin = _End(self._pipes, writing)


class _End:
    """The end of a pipe that the parent holds."""

    def __init__(self, pipes: list[int], number: int) -> None:
        self._pipes, self._number = pipes, number

    def close(self) -> None:
        self._pipes.remove(self._number)
        os.close(self._number)
