"""What a ``CapturedSVI`` had recorded before a checkpoint, so that another one goes on alike."""

from collections.abc import Hashable, Mapping
from typing import final

from pyro_dpvae.recording import Fingerprint

__all__ = ["Past"]

_Entry = tuple[int, bool]


@final
class Past:
    """Steps by their arguments, before a checkpoint.

    Args:
        arguments: of each, in words, the eager steps that it had, and whether it was recorded.
        recorded: whether anything was.
    """

    def __init__(
        self, arguments: Mapping[str, _Entry] | None = None, *, recorded: bool = False
    ) -> None:
        self.recorded = recorded
        self._arguments = dict(arguments or {})
        self._state: Fingerprint | None = None

    @property
    def recordings(self) -> int:
        """How many recordings are yet to be made again."""
        return sum(recorded for _, recorded in self._arguments.values())

    def take(self, arguments: Hashable, state: Fingerprint) -> _Entry | None:
        """Return what there was of arguments, once, while programs are those of the checkpoint.

        The first that it is asked for are, whatever identities their parts have in this process.
        """
        if not self._arguments:
            return None
        if self._state is None:
            self._state = state
        return self._arguments.pop(repr(arguments), None) if state == self._state else None

    def left(self, state: Fingerprint | None) -> dict[str, _Entry]:
        """Return what is yet to be taken, of programs in this state."""
        return self._arguments if self._state in (None, state) else {}
