"""A function of tensors as one graph of operations, captured once and replayed."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, final

import pyro
import pyro.util
import torch
from torch import Tensor, fx
from torch.distributions import Distribution
from torch.fx.experimental import proxy_tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pyro_dpvae.recording.products import choose_products, layout_of, with_opaque_products
from pyro_dpvae.recording.replay import compilable, replay_of, simplify

__all__ = ["NotRecordableError", "Recording", "reason", "record"]

_MASKS = (torch.bool, torch.uint8)

_PACKAGE = str(Path(__file__).parents[1])

_VALUE = (
    "which differs from step to step; give sizes and counts as Python numbers (as in one_hot(y, "
    "num_classes)), and choose between tensors with torch.where"
)


class NotRecordableError(RuntimeError):
    """The function is more than a fixed sequence of operations on tensors."""


@final
class Recording:
    """A captured function: a graph, and the outside tensors that it reads and writes.

    Outside tensors, such as parameters and buffers, are held by reference: a replay sees their
    current values. Replays build no autograd graph.

    Args:
        graph: the graph, which takes the inputs and the held tensors.
        held: the held tensors.
        exact: whether the graph has the function's own operations.

    Attributes:
        generators: the random generators it uses besides PyTorch's default ones.
    """

    def __init__(
        self, graph: fx.GraphModule, held: Sequence[Tensor], *, exact: bool = True
    ) -> None:
        self.graph, self._exact = graph, exact
        self.held = list(held)
        attributes = [getattr(graph, n.target) for n in graph.graph.nodes if n.op == "get_attr"]
        self.generators = [one for one in attributes if isinstance(one, torch.Generator)]
        self._replay = replay_of(graph, self.held)
        self._run: Callable[..., Sequence[Tensor]] = self._replay

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the function's results for inputs of the captured shapes and dtypes."""
        with torch.no_grad(), _casts_off():
            return list(self._run(*inputs, *self.held))

    @property
    def exact(self) -> bool:
        """True if replays have the function's results to the last bit."""
        return self._exact and self._run is self._replay

    def compile(self, inputs: Sequence[Tensor], *, check: Callable[[], None]) -> str | None:
        """Compile the graph with Inductor for inputs like these; random draws stay the same.

        Args:
            inputs: tensors of the captured shapes and dtypes.
            check: raises if a replay is wrong.

        Returns:
            Why the graph runs as it was recorded, if compilation or the check fails; else None.
        """
        tensors: list[Any] = [*inputs, *self.held]
        graph = compilable(with_opaque_products(self.graph))
        try:
            from torch._inductor import compile as compile_graph  # slow to import

            with torch.no_grad(), _casts_off():
                self._run = compile_graph(graph, tensors, options={"fallback_random": True})
            check()
            return None
        except Exception as error:  # a missing compiler, or an operation unknown to it
            wrong = reason(error)
        self._run = self._replay
        return wrong


def record(
    function: Callable[[list[Tensor]], list[Tensor]], inputs: Sequence[Tensor]
) -> Recording:
    """Capture the operations of a function of tensors, its backward passes included.

    Control flow, shapes and Python numbers are those of this one run. The caller must restore what
    the run changes, such as random state and buffers.

    Args:
        function: takes and returns tensors.
        inputs: tensors of the shapes and dtypes to be replayed.

    Raises:
        NotRecordableError: if the function reads the value of a tensor.
        Exception: whatever else the function or the tracer raises.

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
    exact = not choose_products(traced)
    return Recording(traced, held, exact=exact)


def reason(error: Exception) -> str:
    """Return why a function is not captured or compiled, as words that follow "because"."""
    first = next(iter(str(error).strip().splitlines()), "")  # Pyro appends a program's shapes
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
    """Turn outside tensors into inputs after the others, and return them.

    Otherwise a compiler may treat the value of a small tensor as a constant.
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
            held[id(tensor)][1].meta["layout"] = layout_of(tensor)
        node.replace_all_uses_with(held[id(tensor)][1])
        lifted.append(node)
    for node in lifted:  # at the end, since placeholders are inserted before the first of them
        graph.erase_node(node)
    return [tensor for tensor, _ in held.values()]


@contextmanager
def _recording() -> Iterator[None]:
    """Make Pyro's programs traceable: items stay tensors, and nothing checks for NaN."""
    checks = pyro.util.torch_isnan, pyro.util.torch_isinf
    validate = Distribution._validate_sample
    cache = torch.is_autocast_cache_enabled()
    pyro.util.torch_isnan = pyro.util.torch_isinf = lambda _: False
    Distribution._validate_sample = _accept  # type: ignore[method-assign, assignment]
    # The cache keeps casts of weights beyond one step; an earlier cast would become a constant.
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(False)
    optimizers = register_optimizer_step_pre_hook(_refuse_optimizer)
    # The tracer describes each result by a fake tensor, which takes longer than all else it does.
    describe = getattr(proxy_tensor, "set_meta", None)
    proxy_tensor.set_meta = _keep_layout  # type: ignore[assignment]
    try:
        with _Operations(), _Values():
            yield
    finally:
        proxy_tensor.set_meta = describe  # type: ignore[assignment]
        optimizers.remove()
        torch.set_autocast_cache_enabled(cache)
        pyro.util.torch_isnan, pyro.util.torch_isinf = checks
        Distribution._validate_sample = validate  # type: ignore[method-assign]


def _keep_layout(proxy: fx.Proxy, value: Any) -> fx.Proxy:
    """Keep the layout of a result, for ``simplify`` and ``choose_products``."""
    if isinstance(value, Tensor):
        proxy.node.meta["layout"] = layout_of(value)
    return proxy


def _refuse_optimizer(optimizer: Any, _args: Any, _kwargs: Any) -> None:
    raise NotRecordableError(
        f"its loss steps an optimizer, {type(optimizer).__name__}, whose Python numbers a "
        "capture would freeze; step it outside the loss"
    )


def _accept(_distribution: Distribution, _value: Tensor) -> None:
    """Accept every sample: eager steps have validated them, and a capture cannot."""


class _Operations(TorchDispatchMode):
    """Raise at operations whose results have data-dependent values or sizes.

    The tracer raises for tensors that it follows, but takes values of outside tensors for
    constants.
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
            raise NotRecordableError(f"it reads the value of a tensor, by {name}, {_VALUE}")
        elif torch.Tag.dynamic_output_shape in operation.tags:
            raise NotRecordableError(f"the size of the result of {name} differs from step to step")
        return operation(*args, **(kwargs or {}))


class _Values(TorchFunctionMode):
    """Keep ``item`` a tensor; raise where other functions read the value of a tensor."""

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
            return args[0].detach()  # losses and terms are logged this way
        if function is torch.nn.functional.one_hot and tree_leaves((args[1:], kwargs)):
            return _one_hot(*args, **(kwargs or {}))
        literal = function in (torch.tensor, torch.as_tensor) and not isinstance(args[0], Tensor)
        if function in self._TAKERS or (
            literal and any(isinstance(leaf, Tensor) for leaf in tree_leaves(args[0]))
        ):
            raise NotRecordableError(
                f"it reads the value of a tensor, by {function.__name__}, {_VALUE}"
            )
        return function(*args, **(kwargs or {}))

    def _check_origin(self, tensor: Tensor) -> None:
        """Raise at results of outside operations, before a backward pass frees their graph."""
        node = tensor.grad_fn
        if node is not None and node._sequence_nr() < self._first:
            raise NotRecordableError(
                f"it reads a tensor of shape {tuple(tensor.shape)} that was computed with "
                "gradients outside the step, which a replay would not repeat; compute it inside "
                "the program, or detach it and fill it in place"
            )


def _one_hot(classes: Tensor, num_classes: int) -> Tensor:
    """Return PyTorch's ``one_hot`` without reading the classes; ``scatter`` checks their range."""
    return classes.new_zeros(*classes.shape, num_classes).scatter(-1, classes[..., None], 1)


@contextmanager
def _casts_off() -> Iterator[None]:
    """Switch autocast off: the captured operations already include the casts."""
    active = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    with ExitStack() as stack:
        for kind in active:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield
