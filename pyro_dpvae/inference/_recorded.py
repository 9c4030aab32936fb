"""A step's evaluation as a recording: capture, replay, and comparison with the program."""

import random
import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.recording.graph import NotRecordableError, Recording, record
from pyro_dpvae.recording.guards import surroundings
from pyro_dpvae.recording.rollback import Attributes, agree, rollback, rollback_modules

__all__ = [
    "Evaluation",
    "Layout",
    "RecordedStep",
    "describe",
    "difference",
    "evaluate",
    "inputs_of",
    "is_ours",
    "record_step",
]


@dataclass(frozen=True)
class Layout:
    """The meaning of the tensors of an evaluation, in their order.

    Attributes:
        loss: the structure of the loss.
        terms: the names of the objective's terms.
        parameters: all parameters that the programs used, by name.
        moved: the parameters that have a gradient.
        owned: the parameters of the objective, such as an adversary's, that have a gradient.
    """

    loss: TreeSpec
    terms: list[str]
    parameters: dict[str, Tensor]
    moved: list[Tensor]
    owned: list[Tensor]

    @property
    def meaning(self) -> tuple[Any, ...]:
        """The layout without the parameters that have no gradient, for comparison."""
        return self.loss, self.terms, [*map(id, self.moved)], [*map(id, self.owned)]


@dataclass(frozen=True)
class Evaluation:
    """The tensors of the loss, the terms and the gradients of a step."""

    layout: Layout
    tensors: list[Tensor]

    @property
    def losses(self) -> list[Tensor]:
        """The tensors of the loss."""
        return self.tensors[: self.layout.loss.num_leaves]

    @property
    def loss(self) -> Any:
        """The loss in its original structure."""
        return tree_unflatten(self.losses, self.layout.loss)

    @property
    def terms(self) -> dict[str, Tensor]:
        """The terms by name."""
        names, first = self.layout.terms, self.layout.loss.num_leaves
        return dict(zip(names, self.tensors[first : first + len(names)], strict=True))

    def leave_gradients(self) -> None:
        """Add the gradients to the parameters' ``grad``."""
        layout = self.layout
        parameters = [*layout.moved, *layout.owned]
        gradients = self.tensors[len(self.tensors) - len(parameters) :]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            known = parameter.grad
            parameter.grad = gradient if known is None else known + gradient


def is_ours(loss: Any) -> bool:
    """Return True for this library's objectives, which separate the phases of a step."""
    return isinstance(loss, RegularizedELBO)


def evaluate(svi: Any, args: Any, kwargs: Any) -> Evaluation:
    """Evaluate the loss of a ``CapturedSVI``'s step and its gradients, without updates."""
    objective = svi.objective
    terms: dict[str, Tensor] = {}
    with poutine.trace(param_only=True) as used:
        if is_ours(objective):
            loss, terms = objective.evaluate(svi.model, svi.guide, *args, **kwargs)
            if loss.requires_grad:
                loss.backward()
        else:
            loss = svi.loss_and_grads(svi.model, svi.guide, *args, **kwargs)
    parameters = {name: site["value"].unconstrained() for name, site in used.trace.nodes.items()}
    # One parameter may have two names.
    distinct = {id(parameter): parameter for parameter in parameters.values()}.values()
    moved = [parameter for parameter in distinct if parameter.grad is not None]
    owned = [
        parameter
        for part in (objective.parts() if is_ours(objective) else [])
        for parameter in part.parameters()
        if parameter.grad is not None
    ]
    losses, structure = tree_flatten(loss)
    gradients = [parameter.grad for parameter in (*moved, *owned)]
    for parameter in (*moved, *owned):
        parameter.grad = None
    return Evaluation(
        Layout(structure, list(terms), parameters, moved, owned),
        [torch.as_tensor(value).detach() for value in (*losses, *terms.values(), *gradients)],
    )


# Tolerances relative to the norm, for values of loss and terms, and for gradients. Compiled
# kernels and oneDNN sum in another order, which changes gradients at the kink of a rectifier.
# Compiled kernels also keep float32 where autocast would round.
_REPLAYED, _ROUNDED, _UNDER_AUTOCAST = (1e-5, 1e-5), (1e-4, 3e-2), (5e-2, 1e-1)

_EVERY = 1000  # replays between two checks, after the first thousand

_PLAIN = (bool, int, float, str, NoneType, torch.dtype, torch.device)


@dataclass
class RecordedStep:
    """A captured evaluation with the meaning of its results.

    Attributes:
        recording: the graph.
        layout: the meaning of its results.
        modules: the modules it depends on; held so that their ids stay unique.
        uncompiled: why compilation failed, if it was requested.
        key: the guards of the recording.
        replays: the number of steps it has taken.
        graphs: its CUDA graphs by size.
    """

    recording: Recording
    layout: Layout
    modules: list[nn.Module]
    uncompiled: str | None = None
    key: Any = None
    replays: int = 0
    graphs: dict[Hashable, Any] = field(default_factory=dict)

    def __call__(self, inputs: Sequence[Tensor]) -> Evaluation:
        """Evaluate the step by a replay."""
        return Evaluation(self.layout, self.recording(inputs))

    def aside(self, inputs: Sequence[Tensor]) -> Evaluation:
        """Evaluate the step by a replay, and roll back its changes."""
        with rollback(self.recording.held, generators=self.recording.generators):
            results = [result.clone() for result in self.recording(inputs)]
        return Evaluation(self.layout, results)

    def is_due(self, steps: int = 1) -> bool:
        """Return True if a check is due: 1, 2, 4, 8 ... or every thousand after the capture."""
        return any(
            number > 0
            and (number % _EVERY == 0 or (number < _EVERY and number & (number - 1) == 0))
            for number in range(self.replays, self.replays + steps)
        )

    def is_current(self) -> bool:
        """Return True if Pyro's store still holds the captured parameters."""
        stored = pyro.get_param_store()._params
        return all(stored.get(n) is p for n, p in self.layout.parameters.items())


def record_step(
    svi: Any, args: Any, kwargs: Any, *, modules: list[nn.Module], floats: bool
) -> RecordedStep:
    """Capture the evaluation of a step, and roll back its changes.

    Args:
        svi: a ``CapturedSVI``; with the backend ``"inductor"`` the graph is compiled.
        args: arguments of the step.
        kwargs: keyword arguments of the step.
        modules: the modules that the programs may change.
        floats: pass float arguments as inputs of the graph.

    Raises:
        NotRecordableError: if the step cannot be captured.
        Exception: whatever else the programs raise while they are captured.
    """
    _check_hooks(modules)
    _check_overrides(svi.objective)
    leaves, structure = tree_flatten((args, kwargs))
    # Copies with the same strides.
    inputs = [
        torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device).copy_(x)
        for x in inputs_of(args, kwargs, floats=floats)
    ]
    evaluations: list[Evaluation] = []

    def run(tensors: list[Tensor]) -> list[Tensor]:
        rest = iter(tensors)
        filled = [next(rest) if _is_input(leaf, floats) else leaf for leaf in leaves]
        evaluations.append(evaluate(svi, *tree_unflatten(filled, structure)))
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
    made = RecordedStep(recording, evaluations[0].layout, modules)

    def check() -> None:
        if difference(made.aside(inputs), evaluations[0], exact=False) is not None:
            raise NotRecordableError("the compiled step differs from the captured one")

    if svi.backend == "inductor":
        made.uncompiled = recording.compile(inputs, check=check)
    return made


def difference(found: Evaluation, expected: Evaluation, *, exact: bool) -> str | None:
    """Describe how a replay differs from the program; None if it agrees."""
    layout = found.layout
    if layout.meaning != expected.layout.meaning:
        return "it has other terms or other parameters"
    casts = any(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda"))
    of_values, of_gradients = _UNDER_AUTOCAST if casts else _REPLAYED if exact else _ROUNDED
    names = ["loss"] * layout.loss.num_leaves + layout.terms
    tolerances = [of_values] * len(names) + [of_gradients] * (len(found.tensors) - len(names))
    same = agree(found.tensors, expected.tensors, tolerances=tolerances)
    if all(same):
        return None
    stored = {id(parameter): name for name, parameter in layout.parameters.items()}
    names += [f"the gradient of {stored[id(parameter)]}" for parameter in layout.moved]
    names += ["a gradient of the objective's own"] * len(layout.owned)
    wrong = [index for index, alike in enumerate(same) if not alike]
    index = next((index for index in wrong if names[index] != "loss"), wrong[0])
    name, one, other = names[index], found.tensors[index], expected.tensors[index]
    if one.numel() > 1:
        return f"{name} is off by {float((one - other).norm() / other.norm()):.1%} of its norm"
    return f"{name} is {float(one):.6g} and should be {float(other):.6g}"


def inputs_of(args: Any, kwargs: Any, *, floats: bool) -> list[Tensor]:
    """Return tensors and, with ``floats``, float arguments as tensors, in order of the leaves."""
    return [
        leaf if isinstance(leaf, Tensor) else torch.tensor(leaf)
        for leaf in tree_flatten((args, kwargs))[0]
        if _is_input(leaf, floats)
    ]


def describe(args: Any, kwargs: Any, *, floats: bool) -> Hashable:
    """Return the guards of a recording on arguments and PyTorch's settings.

    Args:
        args: arguments of the step.
        kwargs: keyword arguments of the step.
        floats: float arguments are inputs, so that their values do not matter.

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
                f"an argument is a {type(leaf).__name__}, neither a tensor nor a plain value"
            )
    return tuple(described)


def _is_input(leaf: Any, floats: bool) -> bool:
    return isinstance(leaf, Tensor) or (floats and type(leaf) is float)


def _check_argument(x: Tensor) -> None:
    if x.requires_grad:
        raise NotRecordableError("an argument requires gradients, which a replay leaves out")
    if x.layout != torch.strided or any(
        size > 1 and stride == 0 for size, stride in zip(x.shape, x.stride(), strict=True)
    ):
        raise NotRecordableError("an argument is sparse, or an expanded tensor; call contiguous()")


def _check_left_behind(recording: Recording, changed: str | None, drawn: tuple[Any, Any]) -> None:
    """Raise if a step does more than operations on tensors."""
    if changed is not None:
        raise NotRecordableError(f"it changes {changed}, which a replay would not")
    for tensor in recording.held:
        if tensor.is_leaf and tensor.grad is not None:
            tensor.grad = None
            raise NotRecordableError(
                f"it leaves a gradient on a tensor of shape {tuple(tensor.shape)} that is not in "
                "Pyro's parameter store; register it, or set requires_grad=False"
            )
    states = zip(np.random.get_state(), drawn[1], strict=True)
    if not all(np.array_equal(after, before) for after, before in states) or (
        # beartype draws from Python's generator
        random.getstate() != drawn[0] and "beartype" not in sys.modules
    ):
        raise NotRecordableError("it draws from Python's or numpy's random generator")


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
                "method that is captured"
            )
