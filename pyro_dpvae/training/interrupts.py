"""Handling of Ctrl-C and SIGTERM during training: the current step is finished first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, final

__all__ = ["Interrupts"]


@final
class Interrupts:
    """Note the first signal inside the context; raise KeyboardInterrupt at a second one.

    A run cannot resume from the middle of a step, so that the step is finished first. Outside the
    main thread, where Python allows no handlers, signals are handled as usual.

    Args:
        never: never raise, since other ranks wait for this one. torchrun's processes receive a
            signal of the terminal twice.

    Attributes:
        signal: the signal that was noted; None before.
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

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise at the first signal inside this context, where the work can be rolled back.

        Raises at the start if a signal was noted. Has no effect with ``never``.

        Raises:
            KeyboardInterrupt: with the number of the signal.
        """
        before, self._immediate = self._immediate, True
        try:
            if self.signal is not None and not self._never:
                raise KeyboardInterrupt(self.signal)
            yield
        finally:
            self._immediate = before

    def note(self, number: signal.Signals = signal.SIGINT) -> None:
        """Note a signal, unless one was noted already."""
        self.signal = self.signal or number

    def _take(self, number: int, _frame: FrameType | None) -> None:
        again = self.signal is not None
        self.note(signal.Signals(number))
        if not self._never and (again or self._immediate):
            raise KeyboardInterrupt(number)
