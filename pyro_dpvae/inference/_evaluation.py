"""The loss, terms and gradients of a step as a flat list of tensors, which a recording returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.infer import SVI
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from pyro_dpvae.objectives import RegularizedELBO

__all__ = ["Evaluation", "Layout", "evaluate", "is_ours"]


@dataclass(frozen=True)
class Layout:
    """The meaning of the tensors of an evaluation, in their order.

    Attributes:
        loss: the structure of the loss.
        terms: the names of the objective's terms.
        parameters: all parameters that the programs used, by name.
        moved: the parameters that have a gradient.
        owned: the parameters of the objective, such as an adversary's, that have a gradient.
    """

    loss: TreeSpec
    terms: list[str]
    parameters: dict[str, Tensor]
    moved: list[Tensor]
    owned: list[Tensor]

    @property
    def names(self) -> list[str]:
        """The names of all tensors, for messages."""
        stored = {id(parameter): name for name, parameter in self.parameters.items()}
        gradients = [f"the gradient of {stored[id(parameter)]}" for parameter in self.moved]
        owned = ["a gradient of the objective's own"] * len(self.owned)
        return ["loss"] * self.loss.num_leaves + self.terms + gradients + owned

    def tolerances(self, of_values: float, of_gradients: float) -> list[float]:
        """Return the tolerance of each tensor."""
        values = self.loss.num_leaves + len(self.terms)
        return [of_values] * values + [of_gradients] * (len(self.moved) + len(self.owned))

    def matches(self, other: "Layout") -> bool:
        """Return True if the tensors of the other layout have the same meaning."""
        return (
            (self.loss, self.terms) == (other.loss, other.terms)
            and _ids(self.moved) == _ids(other.moved)
            and _ids(self.owned) == _ids(other.owned)
        )


def _ids(tensors: Sequence[Tensor]) -> list[int]:
    return [id(tensor) for tensor in tensors]


@dataclass(frozen=True)
class Evaluation:
    """The tensors of the loss, the terms and the gradients of a step."""

    layout: Layout
    tensors: list[Tensor]

    @property
    def losses(self) -> list[Tensor]:
        """The tensors of the loss."""
        return self.tensors[: self.layout.loss.num_leaves]

    @property
    def loss(self) -> Any:
        """The loss in its original structure."""
        return tree_unflatten(self.losses, self.layout.loss)

    @property
    def terms(self) -> dict[str, Tensor]:
        """The terms by name."""
        names, first = self.layout.terms, self.layout.loss.num_leaves
        return dict(zip(names, self.tensors[first : first + len(names)], strict=True))

    def leave_gradients(self) -> None:
        """Add the gradients to the parameters' ``grad``."""
        layout = self.layout
        parameters = [*layout.moved, *layout.owned]
        gradients = self.tensors[len(self.tensors) - len(parameters) :]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            known = parameter.grad
            parameter.grad = gradient if known is None else known + gradient


def is_ours(loss: Any) -> bool:
    """Return True for this library's objectives, which separate the phases of a step."""
    return isinstance(loss, RegularizedELBO)


def evaluate(svi: SVI, objective: Any, args: Any, kwargs: Any) -> Evaluation:
    """Evaluate the loss of a step and its gradients, without updates."""
    terms: dict[str, Tensor] = {}
    with poutine.trace(param_only=True) as used:
        if is_ours(objective):
            loss, terms = objective.evaluate(svi.model, svi.guide, *args, **kwargs)
            if loss.requires_grad:
                loss.backward()
        else:
            loss = svi.loss_and_grads(svi.model, svi.guide, *args, **kwargs)
    parameters = {name: site["value"].unconstrained() for name, site in used.trace.nodes.items()}
    # One parameter may have two names.
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
