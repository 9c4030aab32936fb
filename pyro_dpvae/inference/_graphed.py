"""Whole training steps as one CUDA graph, with adversaries and optimizers."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, final

import torch
from torch import Tensor

from pyro_dpvae.inference._recorded import Evaluation, RecordedStep, is_ours
from pyro_dpvae.recording.graph import NotRecordableError, reason

__all__ = ["GraphedSteps", "Member", "capture_on_cuda", "graphed_steps"]

_TRIALS = 3  # PyTorch recommends warm-up runs, so that libraries allocate their workspaces


@final
class Member:
    """One program of a launch, with the tensors that its graph reads and writes.

    Args:
        svi: a ``CapturedSVI`` whose optimizer is a ``FusedOptim``.
        recorded: the recording of its step.
        inputs: example inputs of K steps, each of shape (K, ...).

    Raises:
        NotRecordableError: if the recording reads tensors on another device, the loss is not one
            tensor, or the optimizer waits for the device to skip a step.
    """

    def __init__(self, svi: Any, recorded: RecordedStep, inputs: Sequence[Tensor]) -> None:
        layout = recorded.layout
        if layout.loss.num_leaves != 1:
            raise NotRecordableError(f"its loss is not one tensor, but {layout.loss}")
        device = inputs[0].device
        for tensor in (*inputs, *recorded.recording.held):
            if tensor.device != device:
                raise NotRecordableError(
                    f"it reads tensors on {tensor.device} and on {device}, and a CUDA graph "
                    "would freeze the former; move the objective too: "
                    f"objective.to({str(device)!r})"
                )
        self.svi, self.recorded = svi, recorded
        self.inputs = [tensor.detach().clone() for tensor in inputs]
        self.groups: list[dict[str, Any]] = svi.optim.optimizer.param_groups
        if svi.optim.skip_nonfinite and not all(group.get("fused") for group in self.groups):
            raise NotRecordableError(
                "only a fused optimizer skips steps on the device, got "
                f"{type(svi.optim.optimizer).__name__} with skip_nonfinite=True; use Adam, or "
                "skip_nonfinite=False"
            )
        self._rates = [float(group["lr"]) for group in self.groups]
        self.rates = [torch.tensor(rate, device=device) for rate in self._rates]
        self._weights = torch.zeros(self.steps, len(self._schedules(0)), device=device)
        self._values = torch.zeros(self.steps, 1 + len(layout.terms), device=device)

    @property
    def steps(self) -> int:
        """The number of steps in a launch."""
        return len(self.inputs[0])

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Return the optimizers that a step runs, adversaries' included."""
        owned = [
            value
            for part in (self.svi.objective.parts() if is_ours(self.svi.objective) else [])
            for module in part.modules()
            for value in vars(module).values()
            if isinstance(value, torch.optim.Optimizer)
        ]
        return [self.svi.optim.optimizer, *owned]

    def step(self, number: int) -> None:
        """Take one step of the launch; this is the body that the graph captures."""
        for column, (weight, _) in enumerate(self._schedules(0)):
            weight.copy_(self._weights[number, column])
        evaluation = self.recorded([tensor[number] for tensor in self.inputs])
        evaluation.leave_gradients()
        self.svi._update(evaluation)
        values = [*evaluation.losses, *evaluation.terms.values()]
        self._values[number].copy_(torch.stack([value.float() for value in values]))

    def fill(self, inputs: Sequence[Tensor]) -> None:
        """Copy the inputs, scheduled weights and learning rates of the next launch into place."""
        for own, new in zip(self.inputs, inputs, strict=True):
            own.copy_(new, non_blocking=True)
        if self._weights.numel():
            first = self.svi.objective.step
            steps = range(first, first + self.steps)
            values = [[value for _, value in self._schedules(step)] for step in steps]
            self._weights.copy_(torch.tensor(values))
        for number, group in enumerate(self.groups):
            if group["lr"] != self._rates[number]:
                self._rates[number] = float(group["lr"])
                self.rates[number].fill_(self._rates[number])

    def conclude(self) -> Tensor:
        """Count the steps of a launch; return their losses, of shape (K,)."""
        values = self._values.clone()  # the next launch overwrites them
        for row in values:
            self.svi._end(Evaluation(self.recorded.layout, list(row.unbind())))
        return values[:, 0]

    def _schedules(self, step: int) -> list[tuple[Tensor, float]]:
        """Return the tensors of scheduled weights, and their values at a step."""
        parts = self.svi.objective.parts() if is_ours(self.svi.objective) else []
        return [pair for part in parts for pair in part.scheduled(step)]


@final
class GraphedSteps:
    """K steps of each of M programs as one launch of one CUDA graph.

    The programs of a launch run in parallel, each on its own stream.

    Args:
        members: the programs.

    Raises:
        RuntimeError: if an operation cannot be captured.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)
        with ExitStack() as stack:
            for member in self.members:
                stack.enter_context(_capturable(member))
            self._replay = capture_on_cuda(self._body, self._trial)

    def __call__(self, inputs: Sequence[Sequence[Tensor]]) -> Tensor:
        """Take the steps on inputs of shape (K, ...) for each program; return losses (M, K)."""
        for member, own in zip(self.members, inputs, strict=True):
            member.fill(own)
        self._replay()
        return torch.stack([member.conclude() for member in self.members])

    def _body(self) -> None:
        device = self.members[0].inputs[0].device
        with _side_by_side(len(self.members), device) as lanes:
            for member, lane in zip(self.members, lanes, strict=True):
                with lane:
                    for number in range(member.steps):
                        member.step(number)

    def _trial(self) -> None:
        for member in self.members:
            member.recorded.aside([tensor[0] for tensor in member.inputs])


def capture_on_cuda(body: Callable[[], None], trial: Callable[[], None]) -> Callable[[], None]:
    """Capture a body as a CUDA graph; return a function that replays it."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(_TRIALS):
            trial()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        body()
    return graph.replay


def graphed_steps(
    svis: Sequence[Any],
    recordings: Sequence[RecordedStep],
    inputs: Sequence[Sequence[Tensor]],
) -> GraphedSteps | None:
    """Return the CUDA graph of some recordings for K steps; None if CUDA refuses it."""
    graphs = recordings[0].graphs
    key = (tuple(map(id, recordings)), len(inputs[0][0]))
    if key not in graphs:
        start = time.monotonic()
        try:
            members = [Member(*each) for each in zip(svis, recordings, inputs, strict=True)]
            graphs[key] = GraphedSteps(members)
        except Exception as error:  # whatever CUDA refuses to capture
            graphs[key] = None
            svis[0]._warn(
                f"the captured step does not run as a CUDA graph, because {reason(error)}"
            )
        svis[0].recorded_seconds += time.monotonic() - start
    return graphs[key]


@contextmanager
def _side_by_side(count: int, device: torch.device) -> Iterator[list[AbstractContextManager[Any]]]:
    """Yield parallel streams, which fork here and join at the end."""
    if device.type != "cuda" or count == 1:
        yield [nullcontext() for _ in range(count)]
        return
    main = torch.cuda.current_stream()
    streams = [torch.cuda.Stream() for _ in range(count)]
    for stream in streams:
        stream.wait_stream(main)
    yield [torch.cuda.stream(stream) for stream in streams]
    for stream in streams:
        main.wait_stream(stream)


@contextmanager
def _capturable(member: Member) -> Iterator[None]:
    """Make a program's optimizers capturable, with learning rates read from tensors."""
    optimizers = member.optimizers()
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    before = [dict(group) for group in groups]
    for group in groups:
        if "capturable" in group:
            group["capturable"] = True
    for group, rate in zip(member.groups, member.rates, strict=True):
        group["lr"] = rate
    try:
        yield
    finally:
        for group, values in zip(groups, before, strict=True):
            group.update(values)
