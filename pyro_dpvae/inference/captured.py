"""SVI whose step is recorded as one graph, so that Pyro's Python runs once and not every step."""

import time
import warnings
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, final

import pyro
import torch
from pyro import poutine
from pyro.infer import SVI
from pyro.infer.util import torch_item
from pyro.optim import PyroOptim
from pyro.util import warn_if_nan
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from pyro_dpvae._checks import check_choice
from pyro_dpvae._ranks import ranks, rehearsal
from pyro_dpvae.inference._evaluation import is_ours, mark_nonfinite, reads_step
from pyro_dpvae.inference._graphed import GraphedSteps, Member, capture_on_cuda
from pyro_dpvae.inference._past import Past
from pyro_dpvae.inference._recorded import (
    RecordedStep,
    describe,
    record_step,
    tensors_of,
)
from pyro_dpvae.inference.averaging import AveragingOptim
from pyro_dpvae.inference.fused import FusedOptim
from pyro_dpvae.recording import (
    Fingerprint,
    Reach,
    Survey,
    differences,
    reason,
    survey,
)

__all__ = ["CapturedSVI", "check_backend", "steps_together"]

Key = tuple[Hashable, Fingerprint]

BACKENDS = ("eager", "fx", "inductor", "cudagraph")

# The steps before a recording run as ever, with validation as the user has set it. Other keys,
# such as that of the last batch of a pass, come rarely, and a recording costs a second.
_FIRST_STEPS, _STEPS_OF_OTHER_KEYS = 2, 20
_MOST_RECORDINGS = 8
_MOST_KEYS = 64


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

    A recording also depends on numbers in closures, in attributes of objects that the programs
    hold, and under the global names in their code; what they reach otherwise is that of the
    recording, as is the Python that runs between operations, such as hooks and prints. Values that
    change from step to step belong in tensors that are filled in place, as this library's
    schedules are.

    A replay checks no supports and no shapes. A loss that is NaN warns as it does in SVI.
    Gradients are None after a step, where SVI leaves zeros. A step inside a Pyro handler, or with
    gradients off, runs eagerly.

    Args:
        model: p(x, z), as for SVI.
        guide: q(z | x).
        optim: a Pyro optimizer; ``FusedOptim`` is the fast one.
        loss: a Pyro objective, or a function of model, guide and arguments.
        loss_and_grads: as for SVI, where ``loss`` is a function.
        backend: ``"fx"`` replays the operations as they were recorded; ``"inductor"`` compiles
            them first, which takes a C++ compiler and up to a minute; ``"cudagraph"`` replays
            the whole step, optimizers included, as one CUDA graph; ``"eager"`` records nothing.

    Attributes:
        recorded_seconds: the time spent on recording, checking and compiling so far.

    Raises:
        ValueError: if there is no such backend, or for ``"cudagraph"`` no CUDA device or no
            ``FusedOptim``; from the first steps, as SVI does.

    Warns:
        UserWarning: once for each reason why a step is not recorded.

    Example:
        >>> import torch
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
        self.backend = check_backend(backend)
        if backend == "cudagraph" and not isinstance(optim, FusedOptim):
            raise ValueError(
                "the backend 'cudagraph' takes the optimizer into the graph and needs FusedOptim, "
                f"got {type(optim).__name__}"
                + ("; across ranks, use 'inductor'" if isinstance(optim, AveragingOptim) else "")
            )
        self.recorded_seconds = 0.0
        self._recordings: dict[Key, RecordedStep] = {}
        self._eager_steps: dict[Key, int] = {}
        self._refused: set[Key] = set()
        self._last: tuple[Hashable, Fingerprint] = ((), ())
        self._made = 0
        self._past = Past()
        self._reach = Reach()
        self._moved: set[Tensor] = set()
        self._given_up = False
        self._warned: set[str] = set()

    @property
    def recordings(self) -> int:
        """How many recordings there are, with those of a loaded state that are yet to be made."""
        return len(self._recordings) + self._past.recordings

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Take a gradient step; returns the loss as SVI does.

        With ``"cudagraph"`` it is a tensor, for which nothing has waited yet.
        """
        recorded = None if self.backend == "eager" else self._recorded_step(args, kwargs)
        if recorded is None:
            return self._step_eagerly(args, kwargs)
        inputs = tensors_of(args, kwargs)
        if self.backend == "cudagraph":
            single = [tensor.unsqueeze(0) for tensor in inputs]
            graphed = _graphed([self], [recorded], [single])
            if graphed is not None:
                return graphed([single])[0, 0]
        self._begin()
        values = recorded(inputs)
        self._update(recorded.layout.parameters.values(), recorded.losses(values))
        loss = tree_map(torch_item, self._end(recorded, values))
        for value in tree_leaves(loss):
            warn_if_nan(value, "loss")
        return loss

    def steps(self, batches: Tensor) -> Tensor:
        """Take a step on each of K batches, of shape (K, batch, *data); returns K losses.

        With ``"cudagraph"`` they are one launch.
        """
        return steps_together([self], [batches])[0]

    def state_dict(self) -> dict[str, Any]:
        """Return what decides when steps are recorded, and the parameters that have moved.

        It holds no recordings: after :meth:`load_state_dict` in another process they are made
        again, each at the first step of its arguments. Parameters must be in Pyro's store by then.
        """
        try:
            present: Fingerprint | None = self._survey().fingerprint
        except Exception:  # as in a step, which runs eagerly then
            present = None
        names = {parameter: name for name, parameter in pyro.get_param_store()._params.items()}
        return {
            "arguments": self._past.left(present)
            | {
                repr(arguments): (steps, (arguments, state) in self._recordings)
                for (arguments, state), steps in self._eager_steps.items()
                if state == present and (arguments, state) not in self._refused
            },
            "recorded": bool(self._recordings) or self._past.recorded,
            "made": self._made,
            "given_up": self._given_up,
            "recorded_seconds": self.recorded_seconds,
            "moved": sorted(names[parameter] for parameter in self._moved if parameter in names),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take on a state, as of :meth:`state_dict` of one of the same programs."""
        self._past = Past(state["arguments"], recorded=state["recorded"])
        self._made = state["made"] - self._past.recordings  # which are made again
        self._given_up = state["given_up"]
        self.recorded_seconds = state["recorded_seconds"]
        stored = pyro.get_param_store()._params
        self._moved = {stored[name] for name in state["moved"]}

    def _step_eagerly(self, args: Any, kwargs: Any) -> Any:
        with poutine.trace(param_only=True) as used:
            loss = self.loss_and_grads(self.model, self.guide, *args, **kwargs)
        parameters = {site["value"].unconstrained() for site in used.trace.nodes.values()}
        self._optimize(parameters, [torch.as_tensor(value) for value in tree_leaves(loss)])
        return tree_map(torch_item, loss)

    def _begin(self) -> None:
        if is_ours(self.objective):
            self.objective.begin_step()

    def _update(self, parameters: Iterable[Tensor], losses: Sequence[Tensor]) -> None:
        if is_ours(self.objective):
            self.objective.update()
        self._optimize(parameters, losses)

    def _optimize(self, parameters: Iterable[Tensor], losses: Sequence[Tensor]) -> None:
        parameters = list({id(parameter): parameter for parameter in parameters}.values())
        for parameter in parameters:
            if parameter.grad is not None:
                self._moved.add(parameter)
            elif parameter in self._moved:  # as SVI has it, which leaves zeros from step to step
                parameter.grad = torch.zeros_like(parameter)
        if getattr(self.optim, "skip_nonfinite", False):
            mark_nonfinite(parameters, losses)
        self.optim(parameters)
        for parameter in parameters:
            parameter.grad = None

    def _end(self, recorded: RecordedStep, values: Sequence[Tensor]) -> Any:
        loss, terms = recorded.named(values)
        if is_ours(self.objective):
            self.objective.end_step(terms)
        return loss

    def _survey(self) -> Survey:
        """Look at what a recording depends on besides its arguments."""
        if not is_ours(self.objective):
            programs = (self.model, self.guide, self.objective, self.loss_and_grads)
            return survey(*programs, reach=self._reach)
        others = {
            name: value
            for name, value in vars(self.objective).items()
            if name not in ("terms", "step") or (name == "step" and reads_step(self.objective))
        }
        others["ranks"] = ranks().count
        programs = (self.model, self.guide, *self.objective.parts())
        return survey(*programs, reach=self._reach, objective=others)

    def _recorded_step(self, args: Any, kwargs: Any) -> RecordedStep | None:
        """Return the recording for this step, made if its time has come; None runs eagerly."""
        if pyro.poutine.runtime._PYRO_STACK or not torch.is_grad_enabled():
            return None  # a handler around the step, or no gradients
        if self._given_up and not self._recordings:
            return None
        try:
            key = describe(args, kwargs), self._survey().fingerprint
            hash(key)
        except Exception as error:  # an object may refuse to be looked at, a number to be a key
            self._warn(f"the step runs eagerly, because {reason(error)}")
            return None
        found = self._recordings.get(key)
        if found is not None:
            if found.is_current():
                return found
            del self._recordings[key]
            self._eager_steps[key] = 0  # Pyro's store takes on parameters in eager steps
        past = self._past.take(*key)
        if past is not None:
            self._eager_steps[key], recorded = past
            if recorded:
                return self._record(key, args, kwargs)
        if self._given_up or key in self._refused:
            return None
        done = self._eager_steps.get(key, 0)
        self._eager_steps[key] = done + 1
        others = self._recordings or self._past.recorded
        if done < (_STEPS_OF_OTHER_KEYS if others else _FIRST_STEPS):
            self._check_keys(*key)
            return None
        return self._record(key, args, kwargs)

    def _record(self, key: Key, args: Any, kwargs: Any) -> RecordedStep | None:
        start = time.monotonic()
        compiled = self.backend == "inductor"
        try:
            # By itself: other ranks may record at another step, or not at all.
            with rehearsal():
                recorded = record_step(
                    self, self.objective, args, kwargs, programs=self._survey, compiled=compiled
                )
        except Exception as error:  # whatever a program may raise when it is recorded
            self._refused.add(key)
            self._warn(f"the step runs eagerly, because {reason(error)}")
            return None
        finally:
            self.recorded_seconds += time.monotonic() - start
            self._made += 1
        if recorded.uncompiled is not None:
            self._warn(f"the recorded step runs uncompiled, because {recorded.uncompiled}")
        self._recordings[key] = recorded
        return recorded

    def _check_keys(self, arguments: Hashable, state: Fingerprint) -> None:
        """Stop looking for recordings where nearly every step would need one of its own."""
        if len(self._eager_steps) > _MOST_KEYS or self._made >= _MOST_RECORDINGS:
            self._given_up = True
            changed = differences(self._last[1], state) or (
                "the arguments" if arguments != self._last[0] else "Pyro's store"
            )
            self._warn(
                "further steps run eagerly, because each recording is for one set of shapes and "
                f"numbers, and these keep changing: {changed}; hold what changes in a tensor that "
                "is filled in place, and cut batches of one size"
            )
        self._last = arguments, state

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(message, stacklevel=5)


def steps_together(svis: Sequence[CapturedSVI], batches: Sequence[Tensor]) -> Tensor:
    """Take K steps of each of M independent programs; returns losses of shape (M, K).

    Where all have the backend ``"cudagraph"`` and are recorded, the steps are one launch, in which
    the programs run side by side.

    Args:
        svis: the programs, of one tensor argument each.
        batches: of each program, a tensor of shape (K, batch, *data).

    Raises:
        ValueError: if the numbers of steps differ, or those of programs and tensors.
    """
    if len(svis) != len(batches) or len({len(own) for own in batches}) != 1:
        raise ValueError(
            "steps_together needs as many batches for each program, got "
            f"{[len(own) for own in batches]} for {len(svis)} programs"
        )
    if all(svi.backend == "cudagraph" for svi in svis):
        pairs = zip(svis, batches, strict=True)
        recordings = [svi._recorded_step((own[0],), {}) for svi, own in pairs]
        if None not in recordings:
            inputs = [[own] for own in batches]
            graphed = _graphed(svis, recordings, inputs)  # type: ignore[arg-type]  # none is None
            if graphed is not None:
                return graphed(inputs)
    losses = [[svi.step(x) for x in own] for svi, own in zip(svis, batches, strict=True)]
    return torch.tensor(losses)


def check_backend(backend: str) -> str:
    """Return the name of a backend that works here.

    Raises:
        ValueError: if there is no such backend, or for ``"cudagraph"`` no CUDA device.
    """
    check_choice("backend", backend, BACKENDS)
    if backend == "cudagraph" and not torch.cuda.is_available():
        raise ValueError(
            "the backend 'cudagraph' needs a CUDA device, and PyTorch sees none; use 'fx' or "
            "'inductor'"
        )
    return backend


def _graphed(
    svis: Sequence[CapturedSVI],
    recordings: Sequence[RecordedStep],
    inputs: Sequence[Sequence[Tensor]],
) -> GraphedSteps | None:
    """Return the graph of some recordings for as many steps as the inputs hold; None if none."""
    graphs = recordings[0].graphs
    key = (tuple(map(id, recordings)), len(inputs[0][0]))
    if key not in graphs:
        start = time.monotonic()
        try:
            members = [Member(*each) for each in zip(svis, recordings, inputs, strict=True)]
            graphs[key] = GraphedSteps(members, capture=capture_on_cuda)
        except Exception as error:  # whatever CUDA may refuse to capture
            graphs[key] = None
            svis[0]._warn(f"the recorded step runs as no CUDA graph, because {reason(error)}")
        svis[0].recorded_seconds += time.monotonic() - start
    return graphs[key]
