"""SVI whose step is recorded as one graph, so that Pyro's Python runs once and not every step."""

import time
import warnings
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, final

import pyro
import torch
from pyro import poutine
from pyro.infer import SVI
from pyro.infer.util import torch_item
from pyro.optim import PyroOptim
from pyro.util import warn_if_nan
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten

from pyro_dpvae._checks import check_choice
from pyro_dpvae.inference._evaluation import Layout, evaluate, is_ours
from pyro_dpvae.objectives import ELBO
from pyro_dpvae.recording import (
    Fingerprint,
    NotRecordableError,
    Recording,
    agree,
    differences,
    fingerprint,
    modules_of,
    record,
    untouched,
)

__all__ = ["BACKENDS", "CapturedSVI"]

BACKENDS = ("eager", "fx", "inductor")

# The steps before a recording run as ever, with validation as the user has set it. Other keys,
# such as that of the last batch of a pass, come rarely, and a recording costs a second.
_FIRST_STEPS, _STEPS_OF_OTHER_KEYS = 2, 20
_MOST_RECORDINGS = 8
_MOST_KEYS = 64

# Of the largest element of each gradient; compiled kernels add up in another order, and keep
# float32 where autocast would round.
_TOLERANCE = {"fx": 1e-5, "inductor": 1e-3}
_TOLERANCE_UNDER_AUTOCAST = 5e-2
_SEED = 20_001  # of the check, so that draws of the recording would show if they were kept


@final
class CapturedSVI(SVI):
    """``pyro.infer.SVI`` that records its step once and replays it: the same steps, faster.

    The first steps run Pyro's handlers as ever, with validation as it is set. Then the step, from
    the batch to the gradients, is recorded as one graph of tensor operations, random draws
    included; the graph is compared with an eager evaluation under one seed, and replayed from then
    on. There is one recording for each combination of what it depends on: shapes and dtypes of
    tensor arguments, values of other arguments, modes of modules, which parameters take
    gradients, and numbers that are attributes of modules or of the loss. What cannot be recorded
    runs eagerly, with a warning that says why.

    What a program reads elsewhere is that of the recording: global numbers, and the Python that
    runs between operations, such as hooks and prints. Values that change belong in tensors that
    are filled in place, as this library's schedules are.

    A replay checks no supports and no shapes. A loss that is NaN warns as it does in SVI.

    Args:
        model: p(x, z), as for SVI.
        guide: q(z | x).
        optim: a Pyro optimizer; ``FusedOptim`` is the fast one.
        loss: a Pyro objective, or a function of model, guide and arguments.
        loss_and_grads: as for SVI, where ``loss`` is a function.
        backend: ``"fx"`` replays the operations as they were recorded; ``"inductor"`` compiles
            them first, which takes a C++ compiler and up to a minute; ``"eager"`` records
            nothing.

    Attributes:
        recorded_seconds: the time spent on recording, checking and compiling so far.

    Raises:
        ValueError: if there is no such backend; from the first steps, as SVI does.

    Warns:
        UserWarning: once for each reason why a step is not recorded.

    Example:
        >>> from pyro_dpvae.inference import FusedOptim
        >>> from pyro_dpvae.recipes import build_system
        >>> system = build_system(
        ...     (2,),
        ...     latent_dim=2,
        ...     dataset_size=100,
        ...     prior={"name": "coupling"},
        ...     likelihood={"name": "gaussian", "variance": 0.1},
        ...     network={"name": "moons"},
        ...     guide={"name": "amortized"},
        ...     objective={"name": "elbo"},
        ... )
        >>> optim = FusedOptim({"lr": 1e-3})
        >>> svi = CapturedSVI(system.model, system.guide, optim, system.objective)
        >>> losses = [svi.step(torch.zeros(8, 2)) for _ in range(4)]
        >>> svi.recordings
        1
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        optim: PyroOptim,
        loss: Any,
        loss_and_grads: Callable[..., Any] | None = None,
        *,
        backend: str = "fx",
    ) -> None:
        super().__init__(model, guide, optim, loss, loss_and_grads)
        self.objective = loss
        self.backend = check_choice("backend", backend, BACKENDS)
        self.recorded_seconds = 0.0
        self._recordings: dict[Hashable, _RecordedStep] = {}
        self._eager_steps: dict[Hashable, int] = {}
        self._refused: set[Hashable] = set()
        self._last: Fingerprint = ()
        self._given_up = False
        self._warned: set[str] = set()

    @property
    def recordings(self) -> int:
        """How many recordings there are."""
        return len(self._recordings)

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Take a gradient step; returns the loss as SVI does."""
        recorded = None if self.backend == "eager" else self._recorded_step(args, kwargs)
        if recorded is None:
            return self._step_eagerly(args, kwargs)
        if is_ours(self.objective):
            self.objective.begin_step()
        loss, terms = recorded(args, kwargs)
        if is_ours(self.objective):
            self.objective.end_step(terms)
        self._optimize(recorded.layout.parameters.values())
        loss = tree_map(torch_item, loss)
        warn_if_nan(loss if isinstance(loss, float) else sum(loss), "loss")
        return loss

    def _step_eagerly(self, args: Any, kwargs: Any) -> Any:
        with poutine.trace(param_only=True) as used:
            loss = self.loss_and_grads(self.model, self.guide, *args, **kwargs)
        self._optimize({site["value"].unconstrained() for site in used.trace.nodes.values()})
        return tree_map(torch_item, loss)

    def _optimize(self, parameters: Iterable[Tensor]) -> None:
        parameters = list(parameters)
        self.optim(parameters)
        for parameter in parameters:
            parameter.grad = None

    def _recorded_step(self, args: Any, kwargs: Any) -> "_RecordedStep | None":
        """Return the recording for this step, made if its time has come; None runs eagerly."""
        ours = is_ours(self.objective)
        modules = modules_of(self.model, self.guide, *(self.objective.parts() if ours else ()))
        state = fingerprint(modules, [_Numbers(self.objective)] if ours else [self.objective])
        key = (_described(args, kwargs), state, _surroundings())
        found = self._recordings.get(key)
        if found is not None and found.is_current():
            return found
        if self._given_up or key in self._refused:
            return None
        done = self._eager_steps.get(key, 0)
        self._eager_steps[key] = done + 1
        if done < (_STEPS_OF_OTHER_KEYS if self._recordings else _FIRST_STEPS):
            self._check_keys(state)
            return None
        start = time.monotonic()
        try:
            recorded = self._record(args, kwargs, modules)
        except Exception as error:  # whatever a program may raise when it is recorded
            self._refused.add(key)
            self._warn(f"the step runs eagerly, because {_reason(error)}")
            return None
        finally:
            self.recorded_seconds += time.monotonic() - start
        self._recordings[key] = recorded
        return recorded

    def _record(self, args: Any, kwargs: Any, modules: list[nn.Module]) -> "_RecordedStep":
        _check_hooks(modules)
        _check_overrides(self.objective)
        inputs, structure = _split(args, kwargs)
        inputs = [x.detach().clone().requires_grad_(x.requires_grad) for x in inputs]
        layouts: list[Layout] = []

        def run(tensors: list[Tensor]) -> list[Tensor]:
            args, kwargs = _joined(tensors, structure)
            evaluation = evaluate(self, self.objective, args, kwargs)
            layouts.append(evaluation.layout)
            return evaluation.tensors

        def seeded(function: Callable[[list[Tensor]], list[Tensor]]) -> list[Tensor]:
            with untouched(modules, seed=_SEED):
                results = [result.clone() for result in function(inputs)]
                return [*results, torch.rand(())]  # the state that the draws have left behind

        with untouched(modules):
            recording = record(run, inputs)
        expected = seeded(run)
        autocast = any(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda"))

        def check(backend: str) -> None:
            tolerance = _TOLERANCE_UNDER_AUTOCAST if autocast else _TOLERANCE[backend]
            if not agree(seeded(recording), expected, tolerance=tolerance):
                raise NotRecordableError(
                    "its replay differs from an eager evaluation: perhaps it draws numbers by "
                    "Python's or numpy's generator, or reads what changes otherwise"
                )

        check("fx")
        recorded = _RecordedStep(recording, layouts[0], modules)
        if self.backend == "inductor":
            try:
                recording.compile(inputs)
                check("inductor")
            except Exception as error:  # a missing compiler, or an operation unknown to it
                recording.uncompile()
                self._warn(f"the recorded step runs uncompiled, because {_reason(error)}")
        return recorded

    def _check_keys(self, state: Fingerprint) -> None:
        """Stop looking for recordings where nearly every step would need one of its own."""
        if len(self._eager_steps) > _MOST_KEYS or len(self._recordings) >= _MOST_RECORDINGS:
            self._given_up = True
            self._warn(
                "further steps run eagerly, because each recording is for one set of shapes and "
                f"numbers, and these keep changing: {differences(self._last, state)}; hold what "
                "changes in a tensor that is filled in place, and cut batches of one size"
            )
        self._last = state

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(message, stacklevel=5)


@dataclass(frozen=True)
class _RecordedStep:
    """A recorded evaluation, and what its tensors are."""

    recording: Recording
    layout: Layout
    modules: list[nn.Module]  # held, so that no other takes an id of theirs

    def __call__(self, args: Any, kwargs: Any) -> tuple[Any, dict[str, Tensor]]:
        """Evaluate and leave gradients; returns the loss and the terms."""
        layout = self.layout
        results = iter(self.recording(_split(args, kwargs)[0]))
        losses = [next(results) for _ in range(layout.loss.num_leaves)]
        terms = {name: next(results) for name in layout.terms}
        for parameter, gradient in zip((*layout.moved, *layout.owned), results, strict=True):
            parameter.grad = gradient
        return tree_unflatten(losses, layout.loss), terms

    def is_current(self) -> bool:
        """Whether Pyro's store still holds the parameters that were recorded."""
        stored = pyro.get_param_store()._params
        return all(stored.get(n) is p for n, p in self.layout.parameters.items())


class _Numbers:
    """The numbers that define one of this library's objectives; its step is none of them."""

    def __init__(self, objective: ELBO) -> None:
        self.particles = objective.num_particles
        self.vectorized = objective.vectorize_particles
        self.nesting = objective.max_plate_nesting


def _split(args: Any, kwargs: Any) -> tuple[list[Tensor], tuple[list[Any], TreeSpec]]:
    """Return the tensors among arguments, and the rest with None in their places."""
    leaves, spec = tree_flatten((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    return tensors, ([None if isinstance(leaf, Tensor) else (leaf,) for leaf in leaves], spec)


def _joined(tensors: list[Tensor], structure: tuple[list[Any], TreeSpec]) -> tuple[Any, Any]:
    rest = iter(tensors)
    leaves = [next(rest) if leaf is None else leaf[0] for leaf in structure[0]]
    return tree_unflatten(leaves, structure[1])


def _described(args: Any, kwargs: Any) -> Hashable:
    """Return what a recording depends on of the arguments."""
    leaves, spec = tree_flatten((args, kwargs))
    return str(spec), tuple(
        (leaf.shape, leaf.stride(), leaf.dtype, leaf.device, leaf.requires_grad)
        if isinstance(leaf, Tensor)
        else (type(leaf), leaf)
        for leaf in leaves
    )


def _surroundings() -> Hashable:
    kinds = ("cpu", "cuda")
    casts = [torch.get_autocast_dtype(k) if torch.is_autocast_enabled(k) else None for k in kinds]
    return (*casts, torch.get_default_dtype())


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


def _reason(error: Exception) -> str:
    if isinstance(error, NotRecordableError):
        return str(error)
    return f"it cannot be recorded: {type(error).__name__}: {str(error).splitlines()[:1]}"
