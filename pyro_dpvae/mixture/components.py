"""The components of an aggregate posterior, q(z | x_n) of all data, and their log-densities."""

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
from pyro_dpvae.errors import UnsupportedError
from pyro_dpvae.mixture.moments import draw_moments
from pyro_dpvae.nn.modes import in_evaluation

__all__ = [
    "NEGLIGIBLE",
    "AbstractComponents",
    "Exponents",
    "Normals",
    "components_of",
    "diagonal_exponents",
    "full_exponents",
    "has_product",
]

# A tile of log-densities in float64 then takes 1 MB, which fits a core's cache.
_POINTS, _COMPONENTS = 128, 1024

NEGLIGIBLE = -80.0
"""Log ratio to the largest term below which a term cannot change a sum. Clamping to it avoids slow
denormal numbers."""


@final
class Exponents:
    """log sum_m exp(features(z - center) . weights_m + offset_m), with quadratic features.

    Features are [z^2, z] or, with products, [z_i z_j (i <= j), z]. Exponents are computed to base
    2, because ``exp2`` takes less than half the time of ``exp`` on a CPU.

    Args:
        center: the point subtracted from z and means, of shape (L,).
        weights: of shape (components, 2 L) or, with products, (components, L (L + 3) / 2).
        offsets: of shape (components,).
        products: whether features include products of different coordinates.
    """

    def __init__(
        self, center: Tensor, weights: Tensor, offsets: Tensor, *, products: bool = False
    ) -> None:
        self.center, self.products = center, products
        self.dtype = weights.dtype
        self._weights, self._offsets = weights / math.log(2), offsets / math.log(2)

    def log_prob(self, points: Tensor) -> Tensor:
        """Return the log-density at points, (points, L) in float64, of shape (points,)."""
        points = points - self.center
        densities = [self._log_prob(tile) for tile in points.split(_POINTS)]
        return math.log(2) * torch.cat(densities) if densities else points.sum(-1)

    def _log_prob(self, points: Tensor) -> Tensor:
        features = torch.cat([self._squares(points), points], -1).to(self.dtype)
        total = points.new_full(points.shape[:1], -math.inf)
        for weights, offsets in zip(
            self._weights.split(_COMPONENTS), self._offsets.split(_COMPONENTS), strict=True
        ):
            exponents = torch.addmm(offsets, features, weights.T)
            largest = exponents.detach().amax(-1, keepdim=True)
            # Differences from the largest are exact enough in float32, whose exp2 is faster.
            terms = exponents.sub_(largest).float().clamp_(min=NEGLIGIBLE / math.log(2)).exp2_()
            total = torch.logaddexp2(total, largest.squeeze(-1) + terms.sum(-1).double().log2())
        return total

    def _squares(self, points: Tensor) -> Tensor:
        if not self.products:
            return points.square()
        rows, columns = _pairs(points.shape[-1], points.device)
        return points[:, rows] * points[:, columns]


def diagonal_exponents(
    loc: Tensor, scale: Tensor, log_weights: Tensor | float, *, dtype: torch.dtype
) -> Exponents:
    """Return the exponents of sum_m w_m N(z; mu_m, diag sigma_m^2), with mu (components, L)."""
    precision = scale.double().square().reciprocal()
    center = loc.double().mean(0)
    mean = loc.double() - center
    weights = torch.cat([-0.5 * precision, mean * precision], -1).to(dtype)
    offsets = (
        -0.5 * (mean.square() * precision).sum(-1)
        - scale.double().log().sum(-1)
        - 0.5 * loc.shape[1] * math.log(2 * math.pi)
        + log_weights
    )
    return Exponents(center, weights, offsets.to(dtype))


def full_exponents(
    loc: Tensor, scale_tril: Tensor, log_weights: Tensor | float, *, dtype: torch.dtype
) -> Exponents:
    """Return the exponents of sum_m w_m N(z; mu_m, A_m A_m'), with A (components, L, L)."""
    center = loc.double().mean(0)
    rows, columns = _pairs(loc.shape[1], loc.device)
    halves = torch.where(rows == columns, -0.5, -1.0).double()
    weights, offsets = [], []
    for mean, factor in zip(
        (loc.double() - center).split(_COMPONENTS), scale_tril.split(_COMPONENTS), strict=True
    ):
        precision = torch.cholesky_inverse(factor.double())
        along = (precision @ mean.unsqueeze(-1)).squeeze(-1)
        weights.append(torch.cat([halves * precision[:, rows, columns], along], -1).to(dtype))
        diagonal = factor.double().diagonal(dim1=-2, dim2=-1)
        offsets.append(-0.5 * (mean * along).sum(-1) - diagonal.log().sum(-1))
    constant = -0.5 * loc.shape[1] * math.log(2 * math.pi)
    offset = (torch.cat(offsets) + constant + log_weights).to(dtype)
    return Exponents(center, torch.cat(weights), offset, products=True)


def _pairs(latent_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    rows, columns = torch.triu_indices(latent_dim, latent_dim, device=device)
    return rows, columns


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

    @abstractmethod
    def with_tensors(self, fn: Callable[[Tensor], Tensor]) -> "AbstractComponents":
        """Return the posteriors with ``fn(tensor)`` for each of their tensors."""

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

    @final
    def with_tensors(self, fn: Callable[[Tensor], Tensor]) -> AbstractComponents:
        """Return the posteriors with ``fn(tensor)`` for each parameter."""
        build: Callable[..., AbstractComponents] = type(self)
        return build(*map(fn, self.parameters), self.exponents.dtype)

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
        logits, loc, scale = self.parameters
        one = slice(coordinate, coordinate + 1)
        return Mixtures(logits, loc[..., one], scale[..., one])


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

    def with_tensors(self, fn: Callable[[Tensor], Tensor]) -> AbstractComponents:
        """Return the posteriors themselves; raise if ``fn`` would change a tensor."""
        if any(fn(tensor) is not tensor for tensor in (self.loc, self.scale)):
            raise UnsupportedError(
                "an aggregate posterior of flows, or of other posteriors without a closed form, "
                "cannot change its dtype or device, got such a change; compute it again from the "
                "data with the guide in that place"
            )
        return self

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
