"""A context for evaluation mode."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

__all__ = ["in_evaluation"]


@contextmanager
def in_evaluation(*programs: Any, others: bool = True) -> Iterator[None]:
    """Use evaluation mode for every module that runs inside; restore the modes at the end.

    Modules among the programs, and owners of methods among them, change their mode at once. Other
    modules change it when they are first called, so that modules called by a function are in
    evaluation mode too. ``@in_evaluation()`` decorates a function to the same effect.

    Args:
        *programs: modules, and methods of modules.
        others: change the mode of other modules too, when they are called.

    Example:
        >>> import torch
        >>> dropout = nn.Dropout()
        >>> with in_evaluation():
        ...     dropout(torch.ones(2))
        tensor([1., 1.])
        >>> dropout.training
        True
    """
    before: dict[nn.Module, bool] = {}

    def evaluate(module: nn.Module, _inputs: Any = None) -> None:
        if not module.training:
            return
        for part in module.modules():
            before.setdefault(part, part.training)
            part.training = False

    for program in programs:
        owner = program if isinstance(program, nn.Module) else getattr(program, "__self__", None)
        for part in owner.modules() if isinstance(owner, nn.Module) else ():
            evaluate(part)
    handle = register_module_forward_pre_hook(evaluate) if others else None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()
        for part, mode in before.items():
            part.training = mode
