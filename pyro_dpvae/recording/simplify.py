"""A recorded graph without the operations whose results nobody needs, or that others hold too."""

from typing import Any

import torch
from torch import fx

__all__ = ["simplify"]

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
