"""Progress bars: moving ones on a terminal, widgets in a notebook, lines of text in a log."""

import sys
import time
from collections.abc import Iterable
from typing import Any, final

from tqdm import tqdm

__all__ = ["INTERVAL", "bar", "in_time", "write_above"]

INTERVAL = 30.0
"""Seconds between two lines of a bar outside a terminal."""


def bar(
    iterable: Iterable[Any] | None = None, description: str | None = None, **options: Any
) -> Any:
    """Return a progress bar like ``tqdm``.

    On a terminal the bar moves, in a notebook it is a widget, and elsewhere, such as in a log
    file, it prints one line every 30 seconds.

    Args:
        iterable: the iterable to go through; None for a bar that is updated by hand.
        description: text in front of the bar.
        options: options of ``tqdm``.
    """
    if _in_notebook():
        from tqdm import auto

        return auto.tqdm(iterable, description, **options)
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    return (tqdm if on_terminal else _Lines)(iterable, description, **options)


def in_time(seconds: float) -> str:
    """Return a number of seconds as a time.

    Example:
        >>> in_time(75.0)
        '01:15'
    """
    return str(tqdm.format_interval(seconds))


def write_above(text: str) -> None:
    """Print a line on standard error, above the bars there."""
    tqdm.write(text, file=sys.stderr)


@final
class _Lines(tqdm):
    """Print a bar as lines of text: progress, elapsed and remaining time, rate and loss."""

    disable: bool

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._shown_at = self._began = time.monotonic()
        super().__init__(*arguments, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Print a line if the last one is old enough; return True if one was printed."""
        now = time.monotonic()
        if now - self._shown_at < INTERVAL:
            return False
        self._shown_at = now
        self._print()
        return True

    def clear(self, nolock: bool = False) -> None:
        """Do nothing, since printed lines stay."""

    def close(self) -> None:
        """Print the last line of a bar that has printed lines before."""
        if self.disable:
            return
        self.disable = True
        self._decr_instances(self)
        if self.leave and self._shown_at > self._began:
            self._print()

    def _print(self) -> None:
        found = self.format_dict
        done, total, rate = found["n"], found["total"], found["rate"]
        rate = rate or (done - found["initial"]) / max(found["elapsed"], 1e-9)
        parts = [f"{done}/{total} {self.unit}s" if total else f"{done} {self.unit}s"]
        parts.append(f"elapsed {tqdm.format_interval(found['elapsed'])}")
        if total and rate:
            parts.append(f"left {tqdm.format_interval((total - done) / rate)}")
        if rate:
            slow = rate < 1
            parts.append(f"{1 / rate:.2f} s/{self.unit}" if slow else f"{rate:.2f} {self.unit}s/s")
        if self.postfix:
            parts.append(str(self.postfix))
        before = f"{self.desc.removesuffix(': ')}: " if self.desc else ""
        self.fp.write(f"{before}{', '.join(parts)}\n")
        self.fp.flush()


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config
