"""A step's evaluation as a recording: made, compared with an eager one, and replayed."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any

import pyro
import torch
from pyro.infer import SVI
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from pyro_dpvae.inference._evaluation import Layout, evaluate, is_ours
from pyro_dpvae.objectives import ELBO
from pyro_dpvae.recording import (
    NotRecordableError,
    Recording,
    Survey,
    check_replay,
    compile_checked,
    record_aside,
    surroundings,
)

__all__ = ["RecordedStep", "describe", "record_step", "tensors_of"]

# Of the norm, for values of loss and terms and for gradients. Compiled kernels add up in another
# order, which a gradient shows where a rectifier is at its kink, and keep float32 where autocast
# would round in between.
_REPLAYED, _COMPILED, _UNDER_AUTOCAST = (1e-5, 1e-5), (1e-4, 3e-2), (5e-2, 1e-1)

_PLAIN = (bool, int, float, str, NoneType, torch.dtype, torch.device)


@dataclass(frozen=True)
class RecordedStep:
    """A recorded evaluation, and what its tensors are."""

    recording: Recording
    layout: Layout
    programs: Survey  # held, so that nothing else takes an id of theirs
    uncompiled: str | None  # why it is not compiled, though that was asked for
    graphs: dict[Hashable, Any] = field(default_factory=dict)  # CUDA graphs of it, by their sizes

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Evaluate and leave gradients; returns the values: of the loss, then of the terms."""
        layout = self.layout
        results = self.recording(inputs)
        count = layout.loss.num_leaves + len(layout.terms)
        moved = (*layout.moved, *layout.owned)
        for parameter, gradient in zip(moved, results[count:], strict=True):
            known = parameter.grad
            parameter.grad = gradient if known is None else known + gradient
        return results[:count]

    def losses(self, values: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return those of an evaluation's values that the loss is made of."""
        return values[: self.layout.loss.num_leaves]

    def named(self, values: Sequence[Tensor]) -> tuple[Any, dict[str, Tensor]]:
        """Return the loss and the terms of an evaluation's values."""
        count = self.layout.loss.num_leaves
        terms = dict(zip(self.layout.terms, values[count:], strict=True))
        return tree_unflatten(list(values[:count]), self.layout.loss), terms

    def is_current(self) -> bool:
        """Whether Pyro's store still holds the parameters that were recorded."""
        stored = pyro.get_param_store()._params
        return all(stored.get(n) is p for n, p in self.layout.parameters.items())


def record_step(
    svi: SVI,
    objective: Any,
    args: Any,
    kwargs: Any,
    *,
    programs: Callable[[], Survey],
    compiled: bool,
) -> RecordedStep:
    """Record the evaluation of a step, and compare a replay with an eager evaluation.

    Raises:
        NotRecordableError: if the step cannot be recorded, or its replay differs.
        Exception: whatever else the programs raise when they are recorded.
    """
    held = programs()
    _check_hooks(held.modules)
    _check_overrides(objective)
    leaves, structure = tree_flatten((args, kwargs))
    inputs = [_copy(x) for x in tensors_of(args, kwargs)]
    layouts: list[Layout] = []

    def run(tensors: list[Tensor]) -> list[Tensor]:
        rest = iter(tensors)
        filled = [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        evaluation = evaluate(svi, objective, *tree_unflatten(filled, structure))
        layouts.append(evaluation.layout)
        return evaluation.tensors

    def check(of_values: float, of_gradients: float) -> None:
        layout = layouts[0]
        values = layout.loss.num_leaves + len(layout.terms)
        gradients = len(layout.moved) + len(layout.owned)
        tolerances = [of_values] * values + [of_gradients] * gradients
        check_replay(recording, run, inputs, programs=held, tolerances=tolerances)

    recording = record_aside(run, inputs, programs=programs)
    cast = any(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda"))
    check(*(_UNDER_AUTOCAST if cast else _REPLAYED))
    uncompiled = None
    if compiled:
        tolerances = _UNDER_AUTOCAST if cast else _COMPILED
        uncompiled = compile_checked(recording, inputs, check=lambda: check(*tolerances))
    return RecordedStep(recording, layouts[0], held, uncompiled)


def tensors_of(args: Any, kwargs: Any) -> list[Tensor]:
    """Return the tensors among arguments, in the order of their leaves."""
    return [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]


def describe(args: Any, kwargs: Any) -> Hashable:
    """Return what a recording depends on of the arguments and of PyTorch's settings.

    Raises:
        NotRecordableError: if an argument is neither a tensor nor a plain value.
    """
    leaves, structure = tree_flatten((args, kwargs))
    described: list[Hashable] = [str(structure), surroundings()]
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            _check_argument(leaf)
            described.append((leaf.shape, leaf.stride(), leaf.dtype, leaf.device))
        elif isinstance(leaf, _PLAIN):
            described.append((type(leaf), leaf))
        else:
            raise NotRecordableError(
                f"an argument is neither a tensor nor a plain value, but {type(leaf).__name__}"
            )
    return tuple(described)


def _copy(x: Tensor) -> Tensor:
    """Return a copy in the layout of the tensor."""
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device).copy_(x)


def _check_argument(x: Tensor) -> None:
    if x.requires_grad:
        raise NotRecordableError("an argument takes gradients, which a replay leaves out")
    if x.layout != torch.strided or any(
        size > 1 and stride == 0 for size, stride in zip(x.shape, x.stride(), strict=True)
    ):
        raise NotRecordableError("an argument is sparse, or an expanded tensor; call contiguous()")


def _check_hooks(modules: list[nn.Module]) -> None:
    for module in modules:
        if isinstance(module, nn.parallel.DistributedDataParallel):
            raise NotRecordableError(
                "DistributedDataParallel averages gradients in hooks, which a recording leaves out"
            )
        for name, parameter in module._parameters.items():
            if parameter is not None and (
                parameter._backward_hooks or parameter._post_accumulate_grad_hooks
            ):
                raise NotRecordableError(
                    f"{name!r} of {type(module).__name__} has hooks on its gradient, which a "
                    "recording leaves out"
                )


def _check_overrides(objective: Any) -> None:
    if not is_ours(objective):
        return
    for method in ("loss_and_grads", "differentiable_loss"):
        if getattr(type(objective), method) is not getattr(ELBO, method):
            raise NotRecordableError(
                f"{type(objective).__name__} overrides {method}; override evaluate, which is the "
                "part that is recorded"
            )
