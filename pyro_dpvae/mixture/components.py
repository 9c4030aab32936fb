"""The components of an aggregate posterior: q(z | x_n) of all data, by family."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, final

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import (
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
)

from pyro_dpvae.distributions import DiagonalNormalMixture
from pyro_dpvae.mixture.exponents import Exponents, diagonal_exponents, full_exponents
from pyro_dpvae.mixture.moments import draw_moments
from pyro_dpvae.nn.modes import in_evaluation

__all__ = ["AbstractComponents", "Normals", "components_of", "has_product"]

_DRAWS = 1000
# Number of pairs of points and data at once, without a matrix product.
_PAIRS = 16_384


class AbstractComponents(ABC):
    """The posteriors q(z | x_n) of N data.

    Attributes:
        loc: their means, of shape (N, L).
        scale: the standard deviations of their coordinates, of shape (N, L).
        moment_draws: number of samples that estimate ``loc`` and ``scale``; None if they are
            exact.
    """

    loc: Tensor
    scale: Tensor
    moment_draws: int | None = None

    @abstractmethod
    def log_prob(self, points: Tensor) -> Tensor:
        """Return log 1/N sum_n q(z | x_n) at points, (points, L) in float64."""

    @abstractmethod
    def draw(self, chosen: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return z ~ q(z | x_n) and log q(z | x_n), one for each n of ``chosen``."""

    def marginal(self, coordinate: int) -> "AbstractComponents":
        """Return the posteriors of one coordinate; normals, unless overridden."""
        one = slice(coordinate, coordinate + 1)
        return Normals(self.loc[:, one], self.scale[:, one])


class AbstractStacked(AbstractComponents):
    """Posteriors whose parameters are stacked, with q(z) by a matrix product.

    Attributes:
        parameters: the parameters of ``family``, with the data in their first dimension.
    """

    parameters: tuple[Tensor, ...]
    exponents: Exponents

    @staticmethod
    @abstractmethod
    def family(*parameters: Tensor) -> Any:
        """Return a batch of posteriors."""

    @final
    def log_prob(self, points: Tensor) -> Tensor:
        """Return log q(z) by a matrix product."""
        return self.exponents.log_prob(points)

    @final
    def draw(self, chosen: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return z ~ q(z | x_n) and log q(z | x_n), one for each n of ``chosen``."""
        q = self.family(*(one[chosen].to(dtype) for one in self.parameters))
        z = q.sample()
        return z, q.log_prob(z)


@final
class Normals(AbstractStacked):
    """N(z; mu_n, diag sigma_n^2), with parameters of shape (N, L)."""

    def __init__(self, loc: Tensor, scale: Tensor, dtype: torch.dtype = torch.float64) -> None:
        self.parameters = self.loc, self.scale = loc, scale
        self.exponents = diagonal_exponents(loc, scale, -math.log(len(loc)), dtype=dtype)

    @staticmethod
    def family(*parameters: Tensor) -> Any:
        """Return independent normals."""
        return dist.Normal(*parameters, validate_args=False).to_event(1)


@final
class Mixtures(AbstractStacked):
    """sum_k pi_nk N(z; mu_nk, diag sigma_nk^2): logits (N, K), others (N, K, L)."""

    def __init__(
        self, logits: Tensor, loc: Tensor, scale: Tensor, dtype: torch.dtype = torch.float64
    ) -> None:
        self.parameters = logits, loc, scale
        whole = self.family(*self.parameters)
        self.loc, self.scale = whole.mean, whole.variance.sqrt()
        log_weights = whole.logits.double().flatten() - math.log(len(loc))
        self.exponents = diagonal_exponents(
            loc.flatten(0, 1), scale.flatten(0, 1), log_weights, dtype=dtype
        )

    @staticmethod
    def family(*parameters: Tensor) -> Any:
        """Return mixtures."""
        return DiagonalNormalMixture(*parameters, validate_args=False)

    def marginal(self, coordinate: int) -> AbstractComponents:
        """Return the mixtures of one coordinate."""
        logits, *others = self.parameters
        return Mixtures(logits, *(one[..., coordinate : coordinate + 1] for one in others))


@final
class FullNormals(AbstractStacked):
    """N(z; mu_n, A_n A_n'), with mu (N, L) and lower triangular A (N, L, L)."""

    def __init__(
        self, loc: Tensor, scale_tril: Tensor, dtype: torch.dtype = torch.float64
    ) -> None:
        self.loc, self.scale = loc, scale_tril.square().sum(-1).sqrt()
        self.parameters = loc, scale_tril
        self.exponents = full_exponents(loc, scale_tril, -math.log(len(loc)), dtype=dtype)

    @staticmethod
    def family(*parameters: Tensor) -> Any:
        """Return normals of full covariance."""
        loc, scale_tril = parameters
        return dist.MultivariateNormal(loc, scale_tril=scale_tril, validate_args=False)


@final
class Others(AbstractComponents):
    """Posteriors of any family, such as flows, in the batches in which they were computed."""

    moment_draws = _DRAWS

    def __init__(self, posteriors: Sequence[Any]) -> None:
        self._posteriors = list(posteriors)
        moments = [draw_moments(q, _DRAWS) for q in self._posteriors]
        self.loc, self.scale = (torch.cat(parts) for parts in zip(*moments, strict=True))

    @in_evaluation()
    def log_prob(self, points: Tensor) -> Tensor:
        """Return log q(z) from the density of every datum at every point."""
        total = points.new_full(points.shape[:1], -math.inf)
        for q in self._posteriors:
            (size,) = q.batch_shape
            tiles = points.to(self.loc.dtype).split(max(1, _PAIRS // size))
            # Expanded, since not all distributions of other libraries broadcast.
            pairs = [tile.unsqueeze(1).expand(-1, size, -1) for tile in tiles]
            sums = [q.log_prob(pair).double().logsumexp(-1) for pair in pairs]
            total = torch.logaddexp(total, torch.cat(sums)) if sums else total
        return total - math.log(len(self.loc))

    @in_evaluation()
    def draw(self, chosen: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return z ~ q(z | x_n) and log q(z | x_n), one for each n of ``chosen``."""
        z = self.loc.new_empty((*chosen.shape, *self.loc.shape[1:]), dtype=dtype)
        log_prob = z.new_empty(chosen.shape)
        start = 0
        for q in self._posteriors:
            (size,) = q.batch_shape
            places = ((chosen >= start) & (chosen < start + size)).nonzero().squeeze(-1)
            own = chosen[places] - start
            start += size
            if len(places):
                times = _occurrences(own)
                with torch.no_grad():
                    drawn = q(torch.Size([int(times.max()) + 1]))
                z[places] = drawn[times, own].to(dtype)
                log_prob[places] = q.log_prob(drawn)[times, own].to(dtype)
        return z, log_prob

    def marginal(self, coordinate: int) -> AbstractComponents:
        """Return normals with the samples' moments; a single coordinate is its own marginal."""
        return self if self.loc.shape[1] == 1 else super().marginal(coordinate)


def has_product(q: Any) -> bool:
    """Return True if q(z) of such posteriors is computed by a matrix product."""
    return _parameters(q) is not None


def components_of(
    posteriors: Sequence[Any],
    dtype: torch.dtype,
    *,
    collect: Callable[[list[Any]], list[Any]] = list,
) -> AbstractComponents:
    """Return the components of posteriors q(z | x), each of a batch of data.

    Args:
        posteriors: the posteriors of all batches.
        dtype: dtype of matrix products.
        collect: maps the parameters of a rank's posteriors to those of all ranks.

    Raises:
        ValueError: if there are no posteriors.
    """
    parts = collect([_parameters(q) for q in posteriors])
    if not parts:
        raise ValueError("an aggregate posterior needs at least one batch, got none")
    stacked = [part for part in parts if part is not None]
    families = {family for family, _ in stacked}
    if len(stacked) < len(parts) or len(families) > 1:
        return Others(posteriors)
    (family,) = families
    tensors = zip(*(tensors for _, tensors in stacked), strict=True)
    return family(*map(torch.cat, map(list, tensors)), dtype)


def _parameters(q: Any) -> tuple[Any, tuple[Tensor, ...]] | None:
    """Return the class and parameters of a batch's components, if they can be stacked."""
    if isinstance(q, Independent) and isinstance(q.base_dist, Normal):
        return Normals, (q.base_dist.loc, q.base_dist.scale)
    if isinstance(q, DiagonalNormalMixture):
        return Mixtures, (q.logits, q.loc, q.scale)
    if isinstance(q, MultivariateNormal | LowRankMultivariateNormal):
        return FullNormals, (q.loc, q.scale_tril)
    return None


def _occurrences(values: Tensor) -> Tensor:
    """Return how often each integer has occurred before."""
    ordered, order = values.sort(stable=True)
    ranks = torch.arange(len(values), device=values.device)
    ranks = ranks - torch.searchsorted(ordered, ordered)
    return torch.empty_like(ranks).index_copy(0, order, ranks)
