"""The prior of several independent vectors, concatenated to one."""

from collections.abc import Sequence
from typing import Any, ClassVar, cast, final

import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_dpvae.distributions import expanded
from pyro_dpvae.priors._base import (
    AbstractPrior,
    LinearizedDensity,
    Matrices,
    Points,
    Values,
    identities,
)

__all__ = ["Joined", "ProductPrior"]


@final
class Joined(TorchDistribution):
    """The distribution of independent vectors, concatenated to one.

        log p(z) = sum_l log p_l(z_l),    z = (z_1, ..., z_L)

    Args:
        parts: the distributions p_l, with one event dimension each and the same batch shape.

    Raises:
        ValueError: if there is no part, or the parts have other shapes.

    Example:
        >>> import pyro.distributions as dist
        >>> p = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
        >>> Joined([p, p]).event_shape
        torch.Size([4])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}  # checked in the constructor
    support = constraints.real_vector

    def __init__(self, parts: Sequence[TorchDistributionMixin]) -> None:
        shapes = [(tuple(part.batch_shape), len(part.event_shape)) for part in parts]
        if not parts or len(set(shapes)) > 1 or shapes[0][1] != 1:
            raise ValueError(
                "parts must have one event dimension each and the same batch shape, got "
                f"batch shapes and event dimensions {shapes}"
            )
        self.parts = tuple(parts)
        self.sizes = [part.event_shape[0] for part in parts]
        super().__init__(parts[0].batch_shape, torch.Size([sum(self.sizes)]))

    @property
    def has_rsample(self) -> bool:
        """True if every part has reparameterised samples."""
        return all(part.has_rsample for part in self.parts)

    @property
    def mean(self) -> Tensor:
        """The mean, of shape (*batch, L), if every part defines it."""
        return torch.cat([part.mean for part in self.parts], -1)

    @property
    def variance(self) -> Tensor:
        """The variance of each coordinate, of shape (*batch, L), if every part defines it."""
        return torch.cat([part.variance for part in self.parts], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(z), in nats."""
        if self._validate_args:
            self._validate_sample(value)
        vectors = value.split(self.sizes, -1)
        terms = [part.log_prob(z) for part, z in zip(self.parts, vectors, strict=True)]
        return torch.stack(terms).sum(0)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples with gradients, of shape (*sample_shape, *batch_shape, L)."""
        return torch.cat([part.rsample(torch.Size(sample_shape)) for part in self.parts], -1)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples without gradients, of shape (*sample_shape, *batch_shape, L)."""
        with torch.no_grad():
            return torch.cat([part.sample(torch.Size(sample_shape)) for part in self.parts], -1)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "Joined":
        """Return p(z), independently for each element of ``batch_shape``."""
        parts = tuple(part.expand(torch.Size(batch_shape)) for part in self.parts)
        return expanded(self, batch_shape, _instance, parts=parts)


@final
class ProductPrior(AbstractPrior):
    """p(z) = prod_l p_l(z_l), independent priors of the parts of z.

    Args:
        priors: p_1, ..., p_L.

    Attributes:
        priors: p_1, ..., p_L.
        latent_dims: sizes of z_1, ..., z_L.

    Raises:
        ValueError: if there is no prior.

    Example:
        >>> from pyro_dpvae.priors import CouplingPrior, StandardNormal
        >>> prior = ProductPrior([CouplingPrior(2), StandardNormal(3)])
        >>> prior.latent_dims, prior().sample((5,)).shape
        ((2, 3), torch.Size([5, 5]))
    """

    def __init__(self, priors: Sequence[AbstractPrior]) -> None:
        if not priors:
            raise ValueError("priors must have at least one prior, got none")
        sizes = tuple(prior.latent_dim for prior in priors)
        super().__init__(sum(sizes))
        self.priors = nn.ModuleList(priors)
        self.latent_dims = sizes

    @property
    def has_smooth_score(self) -> bool:
        """True if the score of every part is a continuous function."""
        return all(prior.has_smooth_score for prior in layers_of(self))

    def forward(self) -> Joined:
        """Return p(z), of batch shape () and event shape (L,)."""
        return Joined([prior() for prior in layers_of(self)])

    def base(self) -> Joined:
        """Return p0 of generation space, the concatenation of the parts' bases."""
        return Joined([prior.base() for prior in layers_of(self)])

    def to_generation(self, z: Points) -> tuple[Points, Values]:
        """Return z0 = g(z), part by part, and log |det dg/dz|."""
        z0, log_dets = zip(*self._each("to_generation", z), strict=True)
        return torch.cat(z0, -1), torch.stack(log_dets).sum(0)

    def linearize_density(self, z: Points) -> LinearizedDensity:
        """Return the gradient of log p(z) and a factor of its negative curvature, part by part."""
        parts = self._each("linearize_density", z)
        factors = torch.vmap(torch.block_diag)(*(part.factor for part in parts))
        return LinearizedDensity(torch.cat([part.gradient for part in parts], -1), factors)

    def linearize_base(self, z0: Points) -> tuple[Points, Matrices | None]:
        """Return gradient and factor of log p0 at z0, part by part; None for the factor I."""
        parts = self._each("linearize_base", z0)
        gradient = torch.cat([gradient for gradient, _ in parts], -1)
        if all(factor is None for _, factor in parts):
            return gradient, None
        factors = [identities(part) if factor is None else factor for part, factor in parts]
        return gradient, torch.vmap(torch.block_diag)(*factors)

    def to_representation(self, z0: Points) -> Points:
        """Return z = g^-1(z0), part by part."""
        return torch.cat(self._each("to_representation", z0), -1)

    def _each(self, method: str, points: Tensor) -> list[Any]:
        """Return the results of a method of every part, for its coordinates."""
        vectors = points.split(self.latent_dims, -1)
        return [getattr(p, method)(z) for p, z in zip(self.priors, vectors, strict=True)]


def layers_of(prior: AbstractPrior) -> list[AbstractPrior]:
    """Return the priors of a ladder's layers, bottom first; any other prior is one layer."""
    if isinstance(prior, ProductPrior):
        return [cast(AbstractPrior, part) for part in prior.priors]
    return [prior]
