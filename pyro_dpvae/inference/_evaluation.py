"""A loss and its gradients as flat lists of tensors, which a recording takes and returns."""

from collections.abc import Iterable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from pyro import poutine
from pyro.infer import SVI
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten

from pyro_dpvae.objectives import ELBO

__all__ = ["Evaluation", "Layout", "evaluate", "is_ours", "mark_nonfinite", "reads_step"]


@dataclass(frozen=True)
class Layout:
    """What the tensors of an evaluation are, in their order.

    Attributes:
        loss: the structure of the loss.
        terms: the names of the objective's terms.
        parameters: all parameters that the programs used, by name.
        moved: those of them that have a gradient.
        owned: the parameters of the objective, such as an adversary's, that have a gradient.
    """

    loss: TreeSpec
    terms: list[str]
    parameters: dict[str, Tensor]
    moved: list[Tensor]
    owned: list[Tensor]


@dataclass(frozen=True)
class Evaluation:
    """The tensors of an evaluation: of the loss, the terms, and the gradients."""

    layout: Layout
    tensors: list[Tensor]


def is_ours(loss: Any) -> bool:
    """Whether a loss is this library's, which tells the pieces of its step apart."""
    return isinstance(loss, ELBO)


def reads_step(objective: ELBO) -> bool:
    """Whether a subclass of this library's objective refers to the step in its own methods."""
    kinds = type(objective).__mro__
    own = kinds[: kinds.index(ELBO)]
    methods = [value for kind in own for value in vars(kind).values()]
    return any("step" in m.__code__.co_names for m in methods if isinstance(m, FunctionType))


def evaluate(svi: SVI, objective: Any, args: Any, kwargs: Any) -> Evaluation:
    """Evaluate the loss of a step and its gradients, between the beginning and end of a step."""
    terms: dict[str, Tensor] = {}
    with poutine.trace(param_only=True) as used:
        if is_ours(objective):
            loss, terms = objective.evaluate(svi.model, svi.guide, *args, **kwargs)
            if loss.requires_grad:
                loss.backward()
        else:
            loss = svi.loss_and_grads(svi.model, svi.guide, *args, **kwargs)
    parameters = {name: site["value"].unconstrained() for name, site in used.trace.nodes.items()}
    # One tensor may have two names.
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


def mark_nonfinite(parameters: Iterable[Tensor], losses: Iterable[Tensor]) -> None:
    """Make a gradient NaN where a loss is not finite, for an optimizer that then skips."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if gradients:
        smallest = min(gradients, key=Tensor.numel)
        for loss in losses:
            smallest.add_(0 * loss.detach())  # 0, or NaN
