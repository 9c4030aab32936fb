"""Evaluation mode for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

__all__ = ["in_evaluation"]


@contextmanager
def in_evaluation(*programs: Any) -> Iterator[None]:
    """Evaluation mode for the modules among programs; modes are as before at the end.

    Example:
        >>> module = nn.Dropout()
        >>> with in_evaluation(module):
        ...     module.training
        False
        >>> module.training
        True
    """
    modules = [program for program in programs if isinstance(program, nn.Module)]
    parts = [part for module in modules for part in module.modules()]
    modes = [part.training for part in parts]
    for part in parts:
        part.training = False
    try:
        yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode
