"""Parsing and checking of requests."""

import json
from collections.abc import Sequence
from typing import Any, NoReturn, final

import torch
from torch import Tensor

from pyro_dpvae._checks import check_choice
from pyro_dpvae.explore.state import SPACES

__all__ = ["Asked"]

_LARGEST = 1e6  # limit of a coordinate
_SIZE = 256  # limit of cells along a side of a map
_SHOWN = 60  # limit of characters of a value in a message


@final
class Asked:
    """The fields of a JSON request, each of which is taken once.

    Args:
        text: the JSON.

    Raises:
        ValueError: if it is not a JSON object; methods raise it for missing or wrong fields.

    Example:
        >>> Asked('{"space": "generation"}').space()
        'generation'
    """

    def __init__(self, text: str) -> None:
        try:
            fields = json.loads(text, parse_constant=_refuse_constant)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"a request must be JSON, got {_short(text)} ({error})") from error
        if not isinstance(fields, dict):
            raise ValueError(f"a request must be a JSON object, got {_short(text)}")
        self._fields: dict[str, Any] = fields

    def space(self) -> str:
        """Return one of ``SPACES``."""
        return self.choice("space", SPACES)

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """Return a field that is one of several texts."""
        return check_choice(name, str(self._take(name)), choices)

    def whole(self, name: str, least: int, most: int) -> int:
        """Return a whole number within bounds."""
        value = self._take(name)
        if type(value) is not int or not least <= value <= most:
            raise ValueError(
                f"{name} must be a whole number from {least} to {most}, got {_short(value)}"
            )
        return value

    def values(self, count: int) -> Tensor:
        """Return the coordinates of a point, of shape (count,)."""
        return torch.tensor(self._numbers("values", count))

    def axes(self, latent_dim: int) -> tuple[int, int]:
        """Return two different coordinates of z; the same twice if z has only one."""
        axes = self._take("axes")
        if not (
            isinstance(axes, list)
            and len(axes) == 2
            and all(type(axis) is int and 0 <= axis < latent_dim for axis in axes)
            and len({*axes}) == min(2, latent_dim)
        ):
            raise ValueError(
                f"axes must be two different coordinates of 0 to {latent_dim - 1}, "
                f"got {_short(axes)}"
            )
        return axes[0], axes[1]

    def box(self) -> tuple[float, float, float, float]:
        """Return left, right, bottom and top of a map."""
        left, right, bottom, top = self._numbers("box", 4)
        if not (left < right and bottom < top):
            raise ValueError(
                "box must be left, right, bottom and top, in this order and apart, "
                f"got {[left, right, bottom, top]}"
            )
        return left, right, bottom, top

    def band(self) -> tuple[int, int, int]:
        """Return the size of a map, and the first row and number of rows to compute."""
        size = self.whole("size", 2, _SIZE)
        first = self.whole("first", 0, size - 1)
        return size, first, self.whole("rows", 1, size - first)

    def nothing_else(self) -> None:
        """Raise if fields are left that nobody has taken."""
        if self._fields:
            raise ValueError(
                f"a request must have no other fields, got {', '.join(map(_short, self._fields))}"
            )

    def _numbers(self, name: str, count: int) -> list[float]:
        values = self._take(name)
        if not isinstance(values, list) or len(values) != count:
            got = f"{len(values)}" if isinstance(values, list) else _short(values)
            raise ValueError(f"{name} must be a list of {count} numbers, got {got}")
        for value in values:  # none that is NaN or infinite is within the limit
            if type(value) not in (int, float) or not abs(value) <= _LARGEST:
                raise ValueError(
                    f"{name} must be numbers within ±{_LARGEST:,.0f}, got {_short(value)}"
                )
        return [float(value) for value in values]

    def _take(self, name: str) -> Any:
        if name not in self._fields:
            raise ValueError(f"the request must have the field {name!r}")
        return self._fields.pop(name)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"numbers must be finite, got {name}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
