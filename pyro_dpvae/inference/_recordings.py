"""When steps are captured: after a few eager steps with the same guards."""

from collections.abc import Hashable
from typing import Any, final

from pyro_dpvae.inference._recorded import RecordedStep
from pyro_dpvae.recording.guards import State, differences

__all__ = ["Key", "Recordings"]

Key = tuple[Hashable, State]
"""The guards of a recording: the arguments, and the state of modules and objective."""

# The first steps run eagerly, with validation as the user has set it. Other keys, such as that of
# the last batch of an epoch, are rare, and a capture takes a second.
_FIRST_STEPS, _STEPS_OF_OTHER_KEYS = 2, 20
_MOST_RECORDINGS = 8
_MOST_KEYS = 64


@final
class Recordings:
    """The recordings of a program by their keys, and the number of eager steps of each key.

    Attributes:
        given_up: True if nothing further is captured, since nearly every step would need a
            capture.
    """

    def __init__(self) -> None:
        self.given_up = False
        self._recorded: dict[Key, RecordedStep] = {}
        self._eager_steps: dict[Key, int] = {}
        self._refused: set[Key] = set()
        self._last: Key = ((), ())
        self._made = 0
        # Of an interrupted run, by the arguments' repr: eager steps, and replays.
        self._past: dict[str, tuple[int, int | None]] = {}
        self._past_state: State | None = None
        self._past_recorded = False

    def __len__(self) -> int:
        past = sum(replays is not None for _, replays in self._past.values())
        return len(self._recorded) + past

    def __iter__(self) -> Any:
        return iter(self._recorded.values())

    def find(self, key: Key) -> RecordedStep | None:
        """Return the recording of a key, if its parameters are still in the store; else None."""
        found = self._recorded.get(key)
        if found is not None and not found.is_current():
            del self._recorded[key]
            self._eager_steps[key] = 0  # eager steps register the parameters in Pyro's store
            return None
        return found

    def add(self, key: Key, recorded: RecordedStep) -> None:
        """Add a recording."""
        recorded.key = key
        self._recorded[key] = recorded

    def refuse(self, key: Key) -> None:
        """Run the steps of a key eagerly from now on."""
        self._recorded.pop(key, None)
        self._refused.add(key)

    def take_past(self, key: Key) -> int | None:
        """Return, once, the replays that a key had before an interruption; None if not captured.

        The first key's state is taken for that of the interrupted run, since identities of objects
        differ between processes.
        """
        if not self._past:
            return None
        self._past_state = self._past_state or key[1]
        if self._past_state != key[1] or repr(key[0]) not in self._past:
            return None
        self._eager_steps[key], replays = self._past.pop(repr(key[0]))
        return replays

    def is_time(self, key: Key) -> bool:
        """Count an eager step of a key; return True if it is time to capture."""
        if self.given_up or key in self._refused:
            return False
        done = self._eager_steps.get(key, 0)
        self._eager_steps[key] = done + 1
        others = self._recorded or self._past_recorded
        due = done >= (_STEPS_OF_OTHER_KEYS if others else _FIRST_STEPS)
        self._made += due
        return due

    def changing(self, key: Key) -> str | None:
        """Describe what keeps changing, if nearly every step would need a capture, and give up."""
        last, self._last = self._last, key
        if self.given_up or (
            len(self._eager_steps) <= _MOST_KEYS and self._made <= _MOST_RECORDINGS
        ):
            return None
        self.given_up = True
        arguments = "the arguments" if key[0] != last[0] else "Pyro's store"
        return differences(last[1], key[1]) or arguments

    def state_dict(self, present: State) -> dict[str, Any]:
        """Return the state that decides when steps are captured, for programs in a state."""
        past = self._past if self._past_state in (None, present) else {}
        arguments = {
            repr(key[0]): (
                steps,
                self._recorded[key].replays if key in self._recorded else None,
            )
            for key, steps in self._eager_steps.items()
            if key[1] == present and key not in self._refused
        }
        return {
            "arguments": past | arguments,
            "recorded": bool(self._recorded) or self._past_recorded,
            "made": self._made,
            "given_up": self.given_up,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state; recordings are made again, each at the first step of its arguments."""
        self._past = {name: tuple(past) for name, past in state["arguments"].items()}
        self._past_recorded = state["recorded"]
        self._made, self.given_up = state["made"], state["given_up"]
