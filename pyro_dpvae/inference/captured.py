"""SVI with a captured step: Pyro's Python runs once instead of at every step."""

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, nullcontext
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

from pyro_dpvae._ranks import ranks, rehearsal
from pyro_dpvae.errors import EagerWarning
from pyro_dpvae.inference._graphed import graphed_steps
from pyro_dpvae.inference._recorded import (
    Evaluation,
    RecordedStep,
    describe,
    difference,
    evaluate,
    inputs_of,
    is_ours,
    record_step,
)
from pyro_dpvae.inference._recordings import Key, Recordings
from pyro_dpvae.inference.averaging import AveragingOptim
from pyro_dpvae.inference.backends import check_backend
from pyro_dpvae.inference.fused import FusedOptim
from pyro_dpvae.recording.graph import NotRecordableError, reason
from pyro_dpvae.recording.guards import Guards, State
from pyro_dpvae.recording.rollback import rollback_modules

__all__ = ["CapturedSVI", "steps_together"]


@final
class CapturedSVI(SVI):
    """``pyro.infer.SVI`` that captures its step once and replays it: the same steps, faster.

    The first steps run Pyro's handlers as usual, with validation as it is set. Then the step, from
    the batch to the gradients, is captured as one graph of tensor operations with its random
    draws, and replayed from then on. The guards of a recording, which need their own capture when
    they change, are:

    - shapes and dtypes of tensor arguments, and values of other arguments except floats;
    - autocast and the default dtype;
    - the modules that run, their ``training`` flags, their parameters and which require gradients;
    - plain numbers and strings that are attributes of these modules or of the loss.

    **Everything else in Python is frozen by the capture**: a number in a configuration object, a
    closure or a handler, a branch, a hook, a print. Keep a changing value in a tensor that is
    filled in place, pass it as an argument (floats are inputs of the graph), or call :meth:`reset`
    after a change. To detect frozen values, replays are compared with the program under the same
    random state, at steps 1, 2, 4, 8 ... after a capture and at every 1,000th. If they differ, a
    warning names the term, and further steps run eagerly. A step that cannot be captured also runs
    eagerly, with a warning that says why.

    A replay checks neither supports nor shapes. A NaN loss warns as in SVI. Gradients are None
    after a step, where SVI leaves zeros. A step inside a Pyro handler, or without gradients, runs
    eagerly.

    Args:
        model: p(x, z), as for SVI.
        guide: q(z | x).
        optim: a Pyro optimizer; ``FusedOptim`` is the fastest.
        loss: a Pyro objective, or a function of model, guide and arguments.
        loss_and_grads: as for SVI, if ``loss`` is a function.
        backend: ``"fx"`` replays the captured operations; ``"inductor"`` compiles them first,
            which needs a C++ compiler and up to a minute; ``"cudagraph"`` replays the whole step,
            optimizers included, as one CUDA graph; ``"eager"`` captures nothing.

    Attributes:
        recorded_seconds: the time spent on captures, checks and compilation so far.

    Raises:
        ValueError: if the backend is unknown, or ``"cudagraph"`` has no CUDA device or no
            ``FusedOptim``; from the first steps, as in SVI.

    Warns:
        UserWarning: once for each reason why a step is not captured or a recording is dropped.

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
            several = isinstance(optim, AveragingOptim)
            raise ValueError(
                "backend 'cudagraph' needs FusedOptim, since the graph includes the optimizer, "
                f"got {type(optim).__name__}"
                f"{'; with several ranks, use' if several else '; or use'} 'inductor'"
            )
        self.recorded_seconds = 0.0
        parts = loss.parts() if is_ours(loss) else []
        self._guards = Guards(model, guide, loss, *parts)
        self._moved: set[Tensor] = set()
        self._warned: set[str] = set()
        self.reset()

    def reset(self) -> None:
        """Drop all recordings; later steps capture the programs anew."""
        self._recordings = Recordings()
        self._floats = True  # float arguments are inputs of the graph

    @property
    def recordings(self) -> int:
        """The number of recordings, including those of a loaded state that are yet to be made."""
        return len(self._recordings)

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Take a gradient step; return the loss as SVI does.

        With ``"cudagraph"`` the loss is a tensor, which the device may not have computed yet.
        """
        recorded = self._recorded_step(args, kwargs)
        if recorded is None:
            return self._step_eagerly(args, kwargs)
        inputs = inputs_of(args, kwargs, floats=self._floats)
        due = recorded.is_due()
        if self.backend == "cudagraph" and not due:
            single = [tensor.unsqueeze(0) for tensor in inputs]
            graphed = graphed_steps([self], [recorded], [single])
            if graphed is not None:
                recorded.replays += 1
                return graphed([single])[0, 0]
        self._begin()
        evaluation = self._checked(recorded, inputs, args, kwargs) if due else recorded(inputs)
        recorded.replays += 1
        evaluation.leave_gradients()
        self._update(evaluation)
        self._end(evaluation)
        loss = tree_map(torch_item, evaluation.loss)
        for value in tree_leaves(loss):
            warn_if_nan(value, "loss")
        return loss

    def steps(self, batches: Tensor) -> Tensor:
        """Take a step on each of K batches, of shape (K, batch, *data); return K losses.

        With ``"cudagraph"`` the steps are one launch.
        """
        return steps_together([self], [batches])[0]

    def state_dict(self) -> dict[str, Any]:
        """Return when steps are captured and checked, and which parameters have moved.

        The state holds no recordings: after :meth:`load_state_dict` in another process each is
        made again at the first step of its arguments. Pyro's store must hold the parameters by
        then.
        """
        names = {parameter: name for name, parameter in pyro.get_param_store()._params.items()}
        return {
            **self._recordings.state_dict(self._state()),
            "floats": self._floats,
            "recorded_seconds": self.recorded_seconds,
            "moved": sorted(names[parameter] for parameter in self._moved if parameter in names),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state of :meth:`state_dict` of the same programs."""
        self.reset()
        self._recordings.load_state_dict(state)
        self._floats = state["floats"]
        self.recorded_seconds = state["recorded_seconds"]
        stored = pyro.get_param_store()._params
        self._moved = {stored[name] for name in state["moved"]}

    def _step_eagerly(self, args: Any, kwargs: Any) -> Any:
        watching = nullcontext() if self.backend == "eager" else self._guards.watching()
        with watching, poutine.trace(param_only=True) as used:
            loss = self.loss_and_grads(self.model, self.guide, *args, **kwargs)
        parameters = {site["value"].unconstrained() for site in used.trace.nodes.values()}
        self._optimize(parameters, [torch.as_tensor(value) for value in tree_leaves(loss)])
        return tree_map(torch_item, loss)

    def _checked(
        self, recorded: RecordedStep, inputs: list[Tensor], args: Any, kwargs: Any
    ) -> Evaluation:
        """Evaluate by the program itself, and drop the recording if a replay differs.

        With several ranks, which may be at different replays, the comparison sends no messages,
        and the step itself is a replay.
        """
        alone = ranks().count == 1
        gradients = [(p, p.grad) for p in (*recorded.layout.moved, *recorded.layout.owned)]
        for parameter, _ in gradients:
            parameter.grad = None
        with rehearsal():
            replayed = recorded.aside(inputs)
        with ExitStack() as stack:
            stack.enter_context(pyro.validation_enabled(False))  # as in a replay
            if not alone:
                stack.enter_context(rehearsal())
                stack.enter_context(rollback_modules(recorded.modules))
            expected = evaluate(self, args, kwargs)
        wrong = difference(replayed, expected, exact=recorded.recording.exact)
        if wrong is not None:
            self._recordings.refuse(recorded.key)
            self._warn(
                "further steps run eagerly, because a replayed step differs from the program: "
                f"{wrong}. A value that the capture has frozen has changed since: keep it in a "
                "tensor that is filled in place, pass it as an argument, or call reset() after "
                "a change"
            )
        if not alone:
            expected = recorded(inputs) if wrong is None else evaluate(self, args, kwargs)
        for parameter, gradient in gradients:
            parameter.grad = gradient
        return expected

    def _begin(self) -> None:
        if is_ours(self.objective):
            self.objective.begin_step()

    def _update(self, evaluation: Evaluation) -> None:
        if is_ours(self.objective):
            self.objective.update()
        self._optimize(evaluation.layout.parameters.values(), evaluation.losses)

    def _optimize(self, parameters: Iterable[Tensor], losses: Sequence[Tensor]) -> None:
        parameters = list({id(parameter): parameter for parameter in parameters}.values())
        for parameter in parameters:
            if parameter.grad is not None:
                self._moved.add(parameter)
            elif parameter in self._moved:  # SVI leaves zeros from step to step
                parameter.grad = torch.zeros_like(parameter)
        if getattr(self.optim, "skip_nonfinite", False):
            self.optim(parameters, nonfinite=_nonfinite(losses))
        else:
            self.optim(parameters)
        for parameter in parameters:
            parameter.grad = None

    def _end(self, evaluation: Evaluation) -> None:
        if is_ours(self.objective):
            self.objective.end_step(evaluation.terms)

    def _state(self) -> State:
        """Return the guards of a recording besides its arguments."""
        owner = getattr(self.objective, "__self__", self.objective)
        attributes = dict(getattr(owner, "__dict__", {}))
        if is_ours(self.objective):
            del attributes["step"]
            attributes["parts"] = str([id(part) for part in self.objective.parts()])
            attributes["ranks"] = ranks().count
        return self._guards.state(objective=attributes)

    def _recorded_step(self, args: Any, kwargs: Any) -> RecordedStep | None:
        """Return the recording for this step, captured now if it is time; None runs eagerly."""
        recordings = self._recordings
        if self.backend == "eager" or (recordings.given_up and not recordings):
            return None
        if pyro.poutine.runtime._PYRO_STACK or not torch.is_grad_enabled():
            return None  # inside a Pyro handler, or without gradients
        try:
            key = describe(args, kwargs, floats=self._floats), self._state()
        except NotRecordableError as error:
            self._warn(f"the step runs eagerly, because {reason(error)}")
            return None
        recorded = recordings.find(key)
        if recorded is not None:
            return recorded
        replays = recordings.take_past(key)
        if replays is None and not recordings.is_time(key):
            changing = recordings.changing(key)
            if changing is not None:
                self._warn(
                    "further steps run eagerly, because each recording is for one set of shapes "
                    "and "
                    f"numbers, and these keep changing: {changing}; keep changing values in a "
                    "tensor that is filled in place, and use batches of one size"
                )
            return None
        recorded = self._record(key, args, kwargs)
        if recorded is not None:
            recorded.replays = replays or 0
        return recorded

    def _record(self, key: Key, args: Any, kwargs: Any) -> RecordedStep | None:
        start = time.monotonic()
        self._begin()
        try:
            # Alone: other ranks may capture at another step, or not at all.
            with rehearsal(), self._guards.watching():
                modules = self._guards.modules()
                recorded = record_step(self, args, kwargs, modules=modules, floats=self._floats)
        except Exception as error:  # whatever a program raises while it is captured
            if self._floats and any(type(leaf) is float for leaf in tree_leaves((args, kwargs))):
                self._floats = False  # perhaps it needs their values: capture each value
            else:
                self._recordings.refuse(key)
                self._warn(f"the step runs eagerly, because {reason(error)}")
            return None
        finally:
            self.recorded_seconds += time.monotonic() - start
        if recorded.uncompiled is not None:
            self._warn(f"the captured step is not compiled, because {recorded.uncompiled}")
        self._recordings.add((key[0], self._state()), recorded)  # with the modules it called
        return recorded

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(message, category=EagerWarning, stacklevel=5)


def steps_together(svis: Sequence[CapturedSVI], batches: Sequence[Tensor]) -> Tensor:
    """Take K steps of each of M independent programs; return losses of shape (M, K).

    If all have the backend ``"cudagraph"`` and are captured, the steps are one launch in which the
    programs run in parallel.

    Args:
        svis: the programs, with one tensor argument each.
        batches: for each program, a tensor of shape (K, batch, *data).

    Raises:
        ValueError: if the numbers of steps, or of programs and tensors, differ.
    """
    if len(svis) != len(batches) or len({len(own) for own in batches}) != 1:
        raise ValueError(
            "steps_together needs the same number of batches for each program, got "
            f"{[len(own) for own in batches]} for {len(svis)} programs"
        )
    if all(svi.backend == "cudagraph" for svi in svis):
        count = len(batches[0])
        firsts = zip(svis, batches, strict=True)
        recordings = [svi._recorded_step((own[0],), {}) for svi, own in firsts]
        ready = [one for one in recordings if one is not None and not one.is_due(count)]
        if len(ready) == len(svis):
            inputs = [[own] for own in batches]
            if (graphed := graphed_steps(svis, ready, inputs)) is not None:
                for one in ready:
                    one.replays += count
                return graphed(inputs)
    losses = [[svi.step(x) for x in own] for svi, own in zip(svis, batches, strict=True)]
    return torch.tensor(losses)


def _nonfinite(losses: Sequence[Tensor]) -> Tensor:
    """Return 1 if a loss is not finite, else 0, without waiting for the device."""
    return (~torch.stack([loss.detach().isfinite().all() for loss in losses]).all()).float()
