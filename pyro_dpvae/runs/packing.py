"""Conversion of nested states to tensors by name and JSON, and back."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["pack", "unpack"]

_PLAIN = (str, int, float, bool, type(None))


def pack(state: Any) -> tuple[dict[str, Tensor], Any]:
    """Split a nested state into its tensors and a JSON value; :func:`unpack` joins them.

    Keys that are not strings, tuples and infinite numbers are preserved. Other objects raise an
    error, so that nothing is pickled.

    Args:
        state: dictionaries, lists, tuples, tensors, strings, numbers, booleans and None.

    Returns:
        Copies of the tensors by their paths, and the JSON value with the paths in their places.

    Raises:
        TypeError: for any other object, with its path.

    Example:
        >>> import torch
        >>> state = {0: {"step": torch.tensor(3.0), "betas": (0.9, 0.999)}}
        >>> tensors, rest = pack(state)
        >>> tensors
        {'0.step': tensor(3.)}
        >>> unpack(tensors, rest) == state
        True
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _packed(state, (), tensors)


def unpack(tensors: Mapping[str, Tensor], rest: Any) -> Any:
    """Return the state that :func:`pack` split."""
    if isinstance(rest, list):
        return [unpack(tensors, item) for item in rest]
    if not isinstance(rest, dict):
        return rest
    if "$tensor" in rest:
        return tensors[rest["$tensor"]]
    if "$tuple" in rest:
        return tuple(unpack(tensors, item) for item in rest["$tuple"])
    if "$float" in rest:
        return float(rest["$float"])
    if "$items" in rest:
        return {key: unpack(tensors, value) for key, value in rest["$items"]}
    return {key: unpack(tensors, value) for key, value in rest.items()}


def _packed(value: Any, path: tuple[str, ...], tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = ".".join(path)
        while name in tensors:  # for the keys 1 and "1"
            name += "'"
        tensors[name] = value.detach().clone().contiguous()
        return {"$tensor": name}
    if isinstance(value, Mapping):
        items = [[key, _packed(item, (*path, str(key)), tensors)] for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return dict(items)
        for key in value:
            _check(key, path)
        return {"$items": items}
    if isinstance(value, list | tuple):
        items = [_packed(item, (*path, str(at)), tensors) for at, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    _check(value, path)
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}
    return value


def _check(value: Any, path: tuple[str, ...]) -> None:
    if type(value) not in _PLAIN:
        raise TypeError(
            "a state must hold tensors, numbers, strings, lists, tuples and dictionaries, got "
            f"{type(value).__name__} at {'.'.join(path) or 'the top'}; return such values from "
            "state_dict()"
        )
