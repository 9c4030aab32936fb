"""Channels-last layout in a compiled graph, which is faster for convolutions on a CPU."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, fx

__all__ = ["with_channels_last"]

_aten = torch.ops.aten

# PyTorch declares a contiguous result, but returns one in the layout of the input.
_MISDECLARED = (_aten.replication_pad2d_backward.default,)


def with_channels_last(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> fx.GraphModule:
    """Return a graph whose convolutions on a CPU use weights in channels-last layout.

    Their results, and the images between them, then have that layout too. The compiler would
    choose it for forward passes only: a captured backward pass fixes the layouts of its inputs,
    and each image would be copied there and back. Gradients of weights are returned in the layout
    of the weights.

    Args:
        graph: a graph of tensor operations.
        inputs: the values of its placeholders.
    """
    changed = copy.deepcopy(graph.graph)
    nodes = [node for node in changed.nodes if node.op == "placeholder"]
    tensors = dict(zip(nodes, inputs, strict=True))
    weights = {
        node.args[1]
        for node in changed.nodes
        if node.target is _aten.convolution.default and _is_plain(tensors.get(node.args[1]))
    }
    if not weights:
        return graph
    for node in list(changed.nodes):
        if node.target is _aten.view.default:
            node.target = _aten.reshape.default  # another layout may not allow the view
        if node.target is _aten.convolution_backward.default and node.args[2] in weights:
            _keep_layout(changed, node)
        if node.target in _MISDECLARED:
            for image in node.args[:2]:
                with changed.inserting_before(node):
                    node.replace_input_with(image, _contiguous(changed, image))
    first = next(node for node in changed.nodes if node.op != "placeholder")
    for weight in weights:
        with changed.inserting_before(first):
            clone = changed.call_function(
                _aten.clone.default, (weight,), {"memory_format": torch.channels_last}
            )
        _replace(weight, clone)
    return fx.GraphModule(graph, changed)


def _is_plain(weight: Tensor | None) -> bool:
    """Return True for a contiguous weight of a 2D convolution on a CPU."""
    return (
        weight is not None
        and weight.device.type == "cpu"
        and weight.dim() == 4
        and weight.is_contiguous()
    )


def _keep_layout(graph: fx.Graph, backward: fx.Node) -> None:
    """Make the gradient of a weight contiguous, like the optimizer's moments."""
    for user in list(backward.users):
        if user.args[1] == 1:  # the weight, of (input, weight, bias)
            with graph.inserting_after(user):
                _replace(user, _contiguous(graph, user))


def _contiguous(graph: fx.Graph, node: fx.Node) -> fx.Node:
    return graph.call_function(
        _aten.clone.default, (node,), {"memory_format": torch.contiguous_format}
    )


def _replace(node: fx.Node, by: fx.Node) -> None:
    """Replace a node for all users except the replacement."""
    node.replace_all_uses_with(by, delete_user_cb=lambda user: user is not by)
