"""A function of tensors as one graph of operations, recorded once and replayed."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, final

import pyro
import pyro.util
import torch
from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode
from torch.distributions import Distribution
from torch.fx.experimental.proxy_tensor import make_fx
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pyro_dpvae.recording.layout import with_channels_last
from pyro_dpvae.recording.replay import replay_of
from pyro_dpvae.recording.simplify import simplify

__all__ = ["NotRecordableError", "Recording", "compile_checked", "reason", "record"]

_MASKS = (torch.bool, torch.uint8)

_PACKAGE = str(Path(__file__).parents[1])

_VALUE = (
    "which differs from step to step; give sizes and counts as Python numbers (as in "
    "one_hot(y, num_classes)), and choose between tensors by torch.where"
)


class NotRecordableError(RuntimeError):
    """A function that is more than a fixed sequence of operations on tensors."""


@final
class Recording:
    """A recorded function: a graph, and the tensors from outside that it reads and writes.

    Those tensors, such as parameters and buffers, are held by reference: a replay sees what they
    hold then. Replays leave no graph for gradients.

    Args:
        graph: takes the inputs and the held tensors.
        held: the held tensors.

    Attributes:
        generators: the random generators beside PyTorch's own that it draws by.
    """

    def __init__(self, graph: fx.GraphModule, held: Sequence[Tensor]) -> None:
        self.graph = graph
        self.held = list(held)
        attributes = [getattr(graph, n.target) for n in graph.graph.nodes if n.op == "get_attr"]
        self.generators = [one for one in attributes if isinstance(one, torch.Generator)]
        self._replay = replay_of(graph, self.held)
        self._run: Callable[..., Sequence[Tensor]] = self._replay

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return what the function returns for inputs of the recorded shapes and dtypes."""
        with torch.no_grad(), _casts_off():
            return list(self._run(*inputs, *self.held))

    def compile(self, inputs: Sequence[Tensor], *, channels_last: bool) -> None:
        """Compile the graph with Inductor, for inputs like these; random draws stay the same.

        Args:
            inputs: of the recorded shapes and dtypes.
            channels_last: whether convolutions on a CPU take that layout, which is faster, but
                changes the order of draws that are made in the layout of an image.
        """
        from torch._inductor import compile as compile_graph  # slow to import, and rarely needed

        tensors: list[Any] = [*inputs, *self.held]
        graph = with_channels_last(self.graph, tensors) if channels_last else self.graph
        with torch.no_grad(), _casts_off():
            self._run = compile_graph(graph, tensors, options={"fallback_random": True})

    def uncompile(self) -> None:
        """Run the graph as it was recorded."""
        self._run = self._replay


def record(
    function: Callable[[list[Tensor]], list[Tensor]], inputs: Sequence[Tensor]
) -> Recording:
    """Return the operations that a function of tensors runs, its backward passes included.

    Control flow, shapes and Python numbers are those of this one run. What the run changes, such
    as random state and buffers, is the caller's to restore.

    Args:
        function: takes and returns tensors.
        inputs: of the shapes and dtypes to be replayed.

    Raises:
        NotRecordableError: if the function asks for the value of a tensor.
        Exception: whatever else the function or the recorder raises.

    Example:
        >>> weight = torch.tensor(3.0)
        >>> recording = record(lambda tensors: [weight * tensors[0]], [torch.tensor(2.0)])
        >>> _ = weight.fill_(5.0)
        >>> recording([torch.tensor(2.0)])
        [tensor(10.)]
    """
    with _recording(), pyro.validation_enabled(False):
        traced = make_fx(lambda *tensors: function(list(tensors)))(*inputs)
    held = _lift(traced)
    simplify(traced)
    return Recording(traced, held)


def compile_checked(
    recording: Recording, inputs: Sequence[Tensor], *, check: Callable[[], None]
) -> str | None:
    """Compile a recording if its replay then passes a check; returns why not, if it does not.

    Args:
        recording: is left uncompiled if the check fails, or the compiler.
        inputs: as for ``Recording.compile``.
        check: raises what is wrong with a replay.
    """
    for channels_last in (True, False):
        try:
            recording.compile(inputs, channels_last=channels_last)
            check()
            return None
        except Exception as error:  # a missing compiler, or an operation unknown to it
            wrong = reason(error)
    recording.uncompile()
    return wrong


def reason(error: Exception) -> str:
    """Return why a function is not recorded or compiled, in words that go on from "because"."""
    first = next(iter(str(error).strip().splitlines()), "")  # Pyro adds a program's shapes
    if not isinstance(error, NotRecordableError):
        first = f"of {type(error).__name__}: {first}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename and not frame.filename.startswith((_PACKAGE, "<"))
    ]
    if not frames:
        return first
    return f"{first} (at {frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line})"


def _lift(traced: fx.GraphModule) -> list[Tensor]:
    """Turn tensors from outside into inputs after the others, and return them.

    A compiler may take the value of a small tensor that is no input for a constant.
    """
    graph = traced.graph
    held: dict[int, tuple[Tensor, fx.Node]] = {}
    lifted: list[fx.Node] = []
    first = next(node for node in graph.nodes if node.op != "placeholder")
    for node in list(graph.nodes):
        if node.op != "get_attr":
            continue
        if all(user.target is torch.ops.aten.lift_fresh_copy.default for user in node.users):
            continue  # a literal of the function
        tensor = getattr(traced, node.target)
        if not isinstance(tensor, Tensor):  # a generator
            continue
        if id(tensor) not in held:
            with graph.inserting_before(first):
                held[id(tensor)] = tensor, graph.placeholder(f"held_{len(held)}")
        node.replace_all_uses_with(held[id(tensor)][1])
        lifted.append(node)
    for node in lifted:  # not before, as placeholders are put before the first of them
        graph.erase_node(node)
    return [tensor for tensor, _ in held.values()]


@contextmanager
def _recording() -> Iterator[None]:
    """Let Pyro's programs be recorded: items stay tensors, and nothing looks for NaN."""
    checks = pyro.util.torch_isnan, pyro.util.torch_isinf
    validate = Distribution._validate_sample
    cache = torch.is_autocast_cache_enabled()
    pyro.util.torch_isnan = pyro.util.torch_isinf = lambda _: False
    Distribution._validate_sample = _accept  # type: ignore[method-assign, assignment]
    # The cache keeps casts of weights beyond one step: one made before would become a constant.
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(False)
    optimizers = register_optimizer_step_pre_hook(_refuse_optimizer)
    # The recorder notes the shape of each result on a fake tensor. Where no mode for those is at
    # hand, it makes one for each operation, and a new mode notes the whole stack of calls.
    shapes = tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True)))
    try:
        with shapes, _Operations(), _Values():
            yield
    finally:
        optimizers.remove()
        torch.set_autocast_cache_enabled(cache)
        pyro.util.torch_isnan, pyro.util.torch_isinf = checks
        Distribution._validate_sample = validate  # type: ignore[method-assign]


def _refuse_optimizer(optimizer: Any, _args: Any, _kwargs: Any) -> None:
    raise NotRecordableError(
        f"its loss steps an optimizer of its own, {type(optimizer).__name__}, and keeps Python "
        "numbers of it; step it outside the loss"
    )


def _accept(_distribution: Distribution, _value: Tensor) -> None:
    """Find a sample valid: the eager steps before have looked, a recording cannot."""


class _Operations(TorchDispatchMode):
    """Operations whose results have values or sizes that no graph holds are refused.

    The recorder refuses them for tensors that it follows; what a tensor from outside holds, it
    takes for a constant.
    """

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = str(operation).removesuffix(".default")
        if operation is torch.ops.aten.index.Tensor:
            if any(index is not None and index.dtype in _MASKS for index in args[1]):
                raise NotRecordableError(
                    f"it selects by a mask, {name}, and the size of the selection differs from "
                    "step to step; use torch.where"
                )
        elif torch.Tag.data_dependent_output in operation.tags:
            raise NotRecordableError(f"it asks for the value of a tensor, by {name}, {_VALUE}")
        elif torch.Tag.dynamic_output_shape in operation.tags:
            raise NotRecordableError(f"the size of what {name} returns differs from step to step")
        return operation(*args, **(kwargs or {}))


class _Values(TorchFunctionMode):
    """``item`` stays a tensor; whatever else would take a value out of a tensor is refused."""

    _TAKERS = (
        torch.Tensor.item,  # of a count or an index
        torch.Tensor.tolist,
        torch.Tensor.numpy,
        torch.Tensor.__array__,
        torch.Tensor.__bool__,
        torch.Tensor.__float__,
        torch.Tensor.__int__,
        torch.Tensor.__index__,
        torch.Tensor.__complex__,
    )

    def __init__(self) -> None:
        super().__init__()
        with torch.enable_grad():
            node = torch.zeros((), requires_grad=True).clone().grad_fn
        self._first = node._sequence_nr()  # type: ignore[union-attr]  # of autograd's nodes

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self._check_origin(leaf)
        if function is torch.Tensor.item and args[0].is_floating_point():
            return args[0].detach()  # as losses and terms are taken down
        literal = function in (torch.tensor, torch.as_tensor) and not isinstance(args[0], Tensor)
        if function in self._TAKERS or (
            literal and any(isinstance(leaf, Tensor) for leaf in tree_leaves(args[0]))
        ):
            raise NotRecordableError(
                f"it asks for the value of a tensor, by {function.__name__}, {_VALUE}"
            )
        return function(*args, **(kwargs or {}))

    def _check_origin(self, tensor: Tensor) -> None:
        """Refuse a result of operations outside, before a backward pass frees their graph."""
        node = tensor.grad_fn
        if node is not None and node._sequence_nr() < self._first:
            raise NotRecordableError(
                f"it reads a tensor of shape {tuple(tensor.shape)} that operations outside the "
                "step made with gradients, which a replay would not make anew; make it inside the "
                "program, or detach it and fill it in place"
            )


@contextmanager
def _casts_off() -> Iterator[None]:
    """Operations were recorded after autocast; a replay must not cast again."""
    active = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    with ExitStack() as stack:
        for kind in active:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield
