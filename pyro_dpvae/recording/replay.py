"""A recorded graph: fewer operations, faster layouts, and a replay as one Python function."""

import copy
from collections.abc import Callable, Sequence
from operator import getitem
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

__all__ = ["compilable", "replay_of", "simplify"]

_aten = torch.ops.aten

_NO_OPERATIONS = (_aten.detach.default, _aten.alias.default)
_RESHAPES = (_aten.view.default, _aten.expand.default, _aten._unsafe_view.default)


def simplify(traced: fx.GraphModule) -> None:
    """Drop from a graph what changes no result, to the last bit.

    That is what only autograd needs, views in the shape that a tensor has, the transpose of a
    transpose, equal views of one tensor but the first, and what nothing uses.
    """
    graph = traced.graph
    views: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        same = _same_as(node)
        if same is None and getattr(node.target, "is_view", False):
            key = (node.target, repr(node.args), repr(node.kwargs))
            same = views.setdefault(key, node)
        if same is not None and same is not node:
            node.replace_all_uses_with(same)
            graph.erase_node(node)
        else:
            _sum_in_place_of_view(node)
    for node in reversed(list(graph.nodes)):
        if not node.users and _is_pure(node):
            graph.erase_node(node)
    traced.recompile()


def _same_as(node: fx.Node) -> fx.Node | None:
    """Return an earlier node that holds the same tensor, if there is one."""
    if node.target in _NO_OPERATIONS:
        return node.args[0]  # type: ignore[return-value]
    if node.target is _aten.t.default and node.args[0].target is _aten.t.default:  # type: ignore[union-attr]
        return node.args[0].args[0]  # type: ignore[union-attr, return-value]
    if node.target in _RESHAPES:
        before, after = _shape(node.args[0]), _shape(node)
        if before is not None and before == after:
            return node.args[0]  # type: ignore[return-value]
    return None


def _sum_in_place_of_view(node: fx.Node) -> None:
    """Let a sum over the first dimension drop it, where a view would: the gradient of a bias."""
    if node.target is not _aten.view.default:
        return
    total: Any = node.args[0]
    before, after = _shape(total), _shape(node)
    if (
        total.target is _aten.sum.dim_IntList
        and len(total.users) == 1
        and total.args[1:] == ([0], True)
        and before is not None
        and after is not None
        and before[1:] == after
    ):
        total.args = (total.args[0], [0])
        total.meta = node.meta
        node.replace_all_uses_with(total)
        node.graph.erase_node(node)


def _shape(node: Any) -> tuple[int, ...] | None:
    layout = node.meta.get("layout")
    return None if layout is None else layout.shape


def _is_pure(node: fx.Node) -> bool:
    """Whether a node does nothing but return its result."""
    operation: Any = node.target
    if node.op != "call_function" or not isinstance(operation, torch._ops.OpOverload):
        return node.op == "get_attr"
    return not (
        operation._schema.is_mutable or torch.Tag.nondeterministic_seeded in operation.tags
    )


# PyTorch declares a contiguous result, but returns one in the layout of the input.
_MISDECLARED = (_aten.replication_pad2d_backward.default,)


def compilable(graph: fx.GraphModule) -> fx.GraphModule:
    """Return a graph that Inductor can compile, although it lays images out in its own way.

    A view may not exist in another layout, so it becomes a reshape, and an operation whose result
    has another layout than PyTorch declares gets contiguous images.
    """
    changed = copy.deepcopy(graph.graph)
    for node in list(changed.nodes):
        if node.target is _aten.view.default:
            node.target = _aten.reshape.default
        if node.target in _MISDECLARED:
            for image in node.args[:2]:
                with changed.inserting_before(node):
                    contiguous = changed.call_function(
                        _aten.clone.default, (image,), {"memory_format": torch.contiguous_format}
                    )
                node.replace_input_with(image, contiguous)
    return fx.GraphModule(graph, changed)


# Of PyTorch's own functions that take the same arguments, parsed in half the time.
# fmt: off
_PLAIN = frozenset((
    "add", "addmm", "bmm", "cat", "clamp", "cos", "div", "exp", "expm1", "ge", "gt", "le",
    "log", "log1p", "logical_and", "logsumexp", "lt", "maximum", "mean", "minimum", "mm",
    "mul", "neg", "pow", "reciprocal", "relu", "rsqrt", "select", "sigmoid", "sin", "sqrt",
    "stack", "sub", "sum", "t", "tanh", "transpose", "unsqueeze", "where",
))
# fmt: on
_METHODS = {"view": Tensor.view, "expand": Tensor.expand, "permute": Tensor.permute}
_LITERALS = (bool, int, str, type(None))


def replay_of(traced: fx.GraphModule, held: Sequence[Tensor]) -> Callable[..., list[Tensor]]:
    """Return a function that runs a graph's operations in their order, for the same results.

    Results are let go after their last use, as when the graph runs itself.

    Args:
        traced: a graph of PyTorch's operations on tensors, which returns a sequence of them.
        held: what its last placeholders stand for.
    """
    graph = copy.deepcopy(traced.graph)
    places = [node for node in graph.nodes if node.op == "placeholder"]
    of_held = zip(places[len(places) - len(held) :], held, strict=True)
    vectors = {place for place, tensor in of_held if tensor.dim() == 1}
    for node in list(graph.nodes):
        if node.target is _aten.addmm.default and node.args[0] in vectors:
            _put_linear(graph, node)
    nodes = list(graph.nodes)
    last = {node: user for user in nodes for node in user.all_input_nodes}
    constants: dict[str, Any] = {}
    names = {node: f"v{number}" for number, node in enumerate(nodes)}

    def constant(value: Any) -> str:
        name = f"c{len(constants)}"
        constants[name] = value
        return name

    known: dict[Any, str] = {}  # names of functions

    def written(value: Any) -> str:
        if isinstance(value, fx.Node):
            return names[value]
        if isinstance(value, list | tuple):
            return f"[{', '.join(map(written, value))}]"
        return repr(value) if type(value) in _LITERALS else constant(value)

    inputs = [names[node] for node in nodes if node.op == "placeholder"]
    lines = [f"def replay({', '.join(inputs)}):"]
    for node in nodes:
        if node.op == "placeholder":
            continue
        if node.op == "output":
            lines.append(f"    return {written(node.args[0])}")
            break
        dead = [names[n] for n in node.all_input_nodes if last[n] is node]
        if node.op == "get_attr":
            constants[names[node]] = getattr(traced, node.target)
            continue
        if node.target is getitem:
            call = f"{written(node.args[0])}[{node.args[1]!r}]"
        else:
            function = _quick(node)
            if function not in known:
                known[function] = constant(function)
            options = [f"{name}={written(value)}" for name, value in node.kwargs.items()]
            call = f"{known[function]}({', '.join([*map(written, node.args), *options])})"
        lines.append(f"    {names[node]} = {call}")
        dead = [name for name in dead if name not in constants]
        if node not in last:
            dead.append(names[node])
        if dead:
            lines.append(f"    del {', '.join(dead)}")
    exec("\n".join(lines), constants)
    return constants["replay"]


def _put_linear(graph: fx.Graph, product: fx.Node) -> None:
    """Put PyTorch's linear in place of a product with a transpose, which it makes itself."""
    bias, x, weight = product.args
    if weight.target is _aten.t.default and not product.kwargs:  # type: ignore[union-attr]
        product.target = F.linear
        product.args = (x, weight.args[0], bias)  # type: ignore[union-attr]
        if not weight.users:  # type: ignore[union-attr]
            graph.erase_node(weight)  # type: ignore[arg-type]


def _quick(node: fx.Node) -> Any:
    """Return the quickest function for an operation."""
    operation: Any = node.target
    if not isinstance(operation, torch._ops.OpOverload):
        return operation
    name = operation._schema.name.removeprefix("aten::")
    if name in _METHODS:
        return _METHODS[name]
    if name in _PLAIN and node.args and _has_tensor_first(node.args[0]):
        return getattr(torch, name)
    return operation._op


def _has_tensor_first(value: Any) -> bool:
    return isinstance(value, fx.Node) or (isinstance(value, list | tuple) and bool(value))
