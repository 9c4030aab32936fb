"""Any fixed distribution of Pyro as a prior."""

import copy
from collections.abc import Callable, Iterator
from typing import Any, final

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import Distribution, Transform, constraints

from pyro_dpvae.priors._base import AbstractDirectPrior, LinearizedDensity, Points

__all__ = ["FixedPrior"]


@final
class FixedPrior(AbstractDirectPrior):
    """A distribution of ``pyro.distributions`` over R^L as a prior without learned parameters.

    Its tensors move with the module to another device or dtype, but are not part of its state. A
    class whose tensors are in objects other than distributions, transforms and lists has a method
    ``with_tensors(fn)``, which returns the distribution with ``fn(tensor)`` for each. For a
    learned prior, subclass ``AbstractPrior`` and register its parameters.

    In the search for a mode, the curvature of log p(z) comes from automatic differentiation, with
    the absolute values of its eigenvalues, so that it is positive semidefinite even where the
    density is not log-concave. It has no gradients.

    Args:
        distribution: p(z), of batch shape () and event shape (L,), or of batch shape (L,) and
            event shape (), whose coordinates are then independent.

    Raises:
        TypeError: if ``distribution`` is not from Pyro.
        ValueError: if it is not over all real vectors of one size, or one of its tensors requires
            gradients.

    References:
        Dauphin et al. (2014), Identifying and attacking the saddle point problem in
        high-dimensional non-convex optimization, section 6, for the absolute eigenvalues.

    Example:
        >>> import pyro.distributions as dist
        >>> prior = FixedPrior(dist.StudentT(3.0, torch.zeros(2), 1.0))
        >>> prior.latent_dim, prior().event_shape
        (2, torch.Size([2]))
    """

    def __init__(self, distribution: Distribution) -> None:
        if not isinstance(distribution, TorchDistributionMixin):
            kind = type(distribution)
            raise TypeError(
                "a prior needs a distribution of pyro.distributions, got "
                f"{kind.__module__}.{kind.__name__}; use the class of that name there"
            )
        if not distribution.event_shape and len(distribution.batch_shape) == 1:
            distribution = distribution.to_event(1)
        if distribution.batch_shape or len(distribution.event_shape) != 1:
            raise ValueError(
                "a prior must be over one vector: batch shape () and one event dimension; got "
                f"batch shape {tuple(distribution.batch_shape)} and event shape "
                f"{tuple(distribution.event_shape)}; use to_event or expand"
            )
        if not _is_over_reals(distribution):
            raise ValueError(
                f"a prior must be over all real vectors, got {distribution}, which has another "
                "support or does not declare it; transform it to the real numbers"
            )
        if any(tensor.requires_grad for tensor in _tensors(distribution)):
            raise ValueError(
                "a fixed distribution must not have tensors that require gradients, got "
                f"{distribution}; subclass AbstractPrior to register its parameters, or detach "
                "them"
            )
        super().__init__(distribution.event_shape[0])
        self.distribution = distribution

    def forward(self) -> TorchDistributionMixin:
        """Return p(z), of batch shape () and event shape (L,)."""
        return self.distribution

    def linearize_density(self, z: Points) -> LinearizedDensity:
        """Return the gradient of log p(z) and a factor of its negative curvature, by point."""
        tracked = torch.is_grad_enabled() and z.requires_grad
        with torch.enable_grad():
            z = z if tracked else z.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self().log_prob(z).sum(), z, create_graph=True)
            rows = [
                torch.autograd.grad(one.sum(), z, retain_graph=True, materialize_grads=True)[0]
                for one in gradient.unbind(-1)
            ]
        eigenvalues, vectors = torch.linalg.eigh(torch.stack(rows, -2).detach())
        factor = vectors * eigenvalues.abs().sqrt().unsqueeze(-2)
        return LinearizedDensity(gradient if tracked else gradient.detach(), factor)

    def extra_repr(self) -> str:
        """Return the arguments of the prior, for its ``repr``."""
        return f"{super().extra_repr()}, {self.distribution}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FixedPrior":
        super()._apply(fn, recurse)
        self.distribution = _mapped(self.distribution, fn)
        return self


def _is_over_reals(distribution: TorchDistributionMixin) -> bool:
    try:
        support: Any = distribution.support
    except NotImplementedError:
        return False
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support is constraints.real


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of a distribution and of its parts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, nn.Module):
        yield from value.parameters()
    elif isinstance(value, Distribution | Transform):
        yield from _tensors(list(vars(value).values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _mapped(value: Any, fn: Callable[[Tensor], Tensor]) -> Any:
    """Return a distribution with ``fn(tensor)`` for each of its tensors."""
    if isinstance(value, Tensor):
        return fn(value)
    if isinstance(value, nn.Module):
        return value._apply(fn)
    if hasattr(value, "with_tensors"):  # parts in objects of its own
        return value.with_tensors(fn)
    if isinstance(value, Distribution | Transform):
        new = copy.copy(value)
        new.__dict__.update({name: _mapped(item, fn) for name, item in vars(value).items()})
        return new
    if type(value) in (list, tuple):
        return type(value)(_mapped(item, fn) for item in value)
    return value
