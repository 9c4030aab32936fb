"""Output to a pipe whose reader may stop early, such as ``head``."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

__all__ = ["patient_output"]


@contextmanager
def patient_output() -> Iterator[None]:
    """Let a command finish although the reader of its output has stopped."""
    before = sys.stdout, sys.stderr
    patient = [None if stream is None else _Patient(stream) for stream in before]
    sys.stdout, sys.stderr = patient
    try:
        yield
    finally:
        for stream in patient:
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before


@final
class _Patient:
    """A stream that drops its output once the pipe is closed."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text; returns its length."""
        try:
            return int(self._stream.write(text))
        except BrokenPipeError:
            self._close()
            return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._close()

    def _close(self) -> None:
        """Send further output, and the content of the buffers, to the null device."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
