"""Ctrl-C and SIGTERM while a run trains: a step that has begun is finished first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, final

__all__ = ["Interrupts"]


@final
class Interrupts:
    """A context in which a first signal is noted, and a second one interrupts at once.

    In the middle of a step there is no state that a run could exactly go on from. Outside the main
    thread, where Python allows no handlers, signals are as ever.

    Args:
        never: whether none interrupts at once, since other ranks wait for what this one does. A
            process of torchrun gets a signal of the terminal twice.

    Attributes:
        signal: the one that was noted; None before.
    """

    def __init__(self, *, never: bool = False) -> None:
        self.signal: signal.Signals | None = None
        self._never = never
        self._immediate = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Interrupt at once in here, what can be undone; at the beginning, if one was noted.

        Nothing is where none interrupts at once.

        Raises:
            KeyboardInterrupt: when a signal comes, with its number.
        """
        before, self._immediate = self._immediate, True
        try:
            if self.signal is not None and not self._never:
                raise KeyboardInterrupt(self.signal)
            yield
        finally:
            self._immediate = before

    def note(self, number: signal.Signals = signal.SIGINT) -> None:
        """Note an interrupt, unless one was."""
        self.signal = self.signal or number

    def _take(self, number: int, _frame: FrameType | None) -> None:
        again = self.signal is not None
        self.note(signal.Signals(number))
        if not self._never and (again or self._immediate):
            raise KeyboardInterrupt(number)
