"""A step's evaluation as a recording: made, replayed, and compared with the program itself."""

import random
import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer import SVI
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from pyro_dpvae.inference._evaluation import Evaluation, Layout, evaluate, is_ours
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.recording import (
    Attributes,
    NotRecordableError,
    Recording,
    agree,
    compile_checked,
    record,
    rollback,
    rollback_modules,
    surroundings,
)

__all__ = ["RecordedStep", "describe", "difference", "inputs_of", "record_step"]

# Of the norm, for values of loss and terms and for gradients. Compiled kernels add up in another
# order, which a gradient shows where a rectifier is at its kink, and keep float32 where autocast
# would round in between.
_REPLAYED, _COMPILED, _UNDER_AUTOCAST = (1e-5, 1e-5), (1e-4, 3e-2), (5e-2, 1e-1)

_EVERY = 1000  # replays from one check to the next, after the first thousand

_PLAIN = (bool, int, float, str, NoneType, torch.dtype, torch.device)


@dataclass
class RecordedStep:
    """A recorded evaluation, what its tensors are, and how often it was replayed.

    Attributes:
        recording: the graph.
        layout: what its results are.
        modules: those that it depends on; held, so that nothing else takes an id of theirs.
        uncompiled: why it is not compiled, though that was asked for.
        key: what it depends on.
        replays: how many steps it has taken.
        graphs: CUDA graphs of it, by their sizes.
    """

    recording: Recording
    layout: Layout
    modules: list[nn.Module]
    uncompiled: str | None = None
    key: Any = None
    replays: int = 0
    graphs: dict[Hashable, Any] = field(default_factory=dict)

    def __call__(self, inputs: Sequence[Tensor]) -> Evaluation:
        """Evaluate by a replay."""
        return Evaluation(self.layout, self.recording(inputs))

    def aside(self, inputs: Sequence[Tensor]) -> Evaluation:
        """Evaluate by a replay that changes nothing."""
        with rollback(self.recording.held, generators=self.recording.generators):
            results = [result.clone() for result in self.recording(inputs)]
        return Evaluation(self.layout, results)

    def is_due(self, steps: int = 1) -> bool:
        """Whether one of the next steps is 1, 2, 4, 8 ... or a thousand after the recording."""
        return any(
            number > 0
            and (number % _EVERY == 0 or (number < _EVERY and number & (number - 1) == 0))
            for number in range(self.replays, self.replays + steps)
        )

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
    modules: Sequence[nn.Module],
    floats: bool,
    compiled: bool,
) -> RecordedStep:
    """Record the evaluation of a step, which changes nothing that modules and Pyro's store hold.

    Args:
        svi: of which model, guide and loss are evaluated.
        objective: the loss.
        args: of the step.
        kwargs: of the step.
        modules: what the programs may change.
        floats: whether floats among the arguments are inputs of the graph.
        compiled: whether to compile it.

    Raises:
        NotRecordableError: if the step cannot be recorded.
        Exception: whatever else the programs raise when they are recorded.
    """
    _check_hooks(modules)
    _check_overrides(objective)
    leaves, structure = tree_flatten((args, kwargs))
    inputs = [_copy(x) for x in inputs_of(args, kwargs, floats=floats)]
    evaluations: list[Evaluation] = []

    def run(tensors: list[Tensor]) -> list[Tensor]:
        rest = iter(tensors)
        filled = [next(rest) if _is_input(leaf, floats) else leaf for leaf in leaves]
        evaluations.append(evaluate(svi, objective, *tree_unflatten(filled, structure)))
        return evaluations[0].tensors

    drawn = random.getstate(), np.random.get_state()
    try:
        with rollback_modules(modules):
            held = Attributes(modules)
            recording = record(run, inputs)
            _check_left_behind(recording, held.changed(), drawn)
    finally:
        random.setstate(drawn[0])
        np.random.set_state(drawn[1])
    layout, uncompiled = evaluations[0].layout, None
    if compiled:
        expected = evaluations[0].tensors
        tolerances = layout.tolerances(*(_UNDER_AUTOCAST if _casts() else _COMPILED))

        def check() -> None:
            with rollback(recording.held, generators=recording.generators):
                found = recording(inputs)
            if not all(agree(found, expected, tolerances=tolerances)):
                raise NotRecordableError("the compiled step differs from the recorded one")

        uncompiled = compile_checked(recording, inputs, check=check)
    return RecordedStep(recording, layout, list(modules), uncompiled)


def difference(found: Evaluation, expected: Evaluation, *, compiled: bool) -> str | None:
    """Return in which term a replay differs from the program itself, in words, or None."""
    if not found.layout.matches(expected.layout):
        return "it has other terms or other parameters"
    bounds = _UNDER_AUTOCAST if _casts() else _COMPILED if compiled else _REPLAYED
    tolerances = found.layout.tolerances(*bounds)
    same = agree(found.tensors, expected.tensors, tolerances=tolerances)
    if all(same):
        return None
    wrong = [
        (name, one, other)
        for name, alike, one, other in zip(
            found.layout.names, same, found.tensors, expected.tensors, strict=True
        )
        if not alike
    ]
    name, one, other = next((each for each in wrong if each[0] != "loss"), wrong[0])
    if one.numel() > 1:
        return f"{name} is off by {float((one - other).norm() / other.norm()):.1%} of its norm"
    return f"{name} is {float(one):.6g} and should be {float(other):.6g}"


def inputs_of(args: Any, kwargs: Any, *, floats: bool) -> list[Tensor]:
    """Return the tensors among arguments, and floats as tensors, in the order of their leaves."""
    return [
        leaf if isinstance(leaf, Tensor) else torch.tensor(leaf)
        for leaf in tree_flatten((args, kwargs))[0]
        if _is_input(leaf, floats)
    ]


def describe(args: Any, kwargs: Any, *, floats: bool) -> Hashable:
    """Return what a recording depends on of the arguments and of PyTorch's settings.

    Args:
        args: of the step.
        kwargs: of the step.
        floats: whether floats are inputs, so that their values do not matter.

    Raises:
        NotRecordableError: if an argument is neither a tensor nor a plain value.
    """
    leaves, structure = tree_flatten((args, kwargs))
    described: list[Hashable] = [str(structure), surroundings()]
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            _check_argument(leaf)
            described.append((leaf.shape, leaf.stride(), leaf.dtype, leaf.device))
        elif _is_input(leaf, floats):
            described.append(float)
        elif isinstance(leaf, _PLAIN):
            described.append((type(leaf), leaf))
        else:
            raise NotRecordableError(
                f"an argument is neither a tensor nor a plain value, but {type(leaf).__name__}"
            )
    return tuple(described)


def _is_input(leaf: Any, floats: bool) -> bool:
    return isinstance(leaf, Tensor) or (floats and type(leaf) is float)


def _casts() -> bool:
    return any(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda"))


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


def _check_left_behind(recording: Recording, changed: str | None, drawn: tuple[Any, Any]) -> None:
    """Refuse a step that does more than a graph of operations on tensors does."""
    if changed is not None:
        raise NotRecordableError(f"it changes {changed}, which a replay would not")
    for tensor in recording.held:
        if tensor.is_leaf and tensor.grad is not None:
            tensor.grad = None
            raise NotRecordableError(
                f"it leaves a gradient on a tensor of shape {tuple(tensor.shape)} that is no "
                "parameter of Pyro's; register it, or let it take no gradients"
            )
    states = zip(np.random.get_state(), drawn[1], strict=True)
    if not all(np.array_equal(after, before) for after, before in states) or (
        # beartype draws by Python's generator what it looks at
        random.getstate() != drawn[0] and "beartype" not in sys.modules
    ):
        raise NotRecordableError("it draws numbers by Python's or numpy's generator")


def _check_hooks(modules: Sequence[nn.Module]) -> None:
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
        if getattr(type(objective), method) is not getattr(RegularizedELBO, method):
            raise NotRecordableError(
                f"{type(objective).__name__} overrides {method}; override evaluate, which is the "
                "part that is recorded"
            )
