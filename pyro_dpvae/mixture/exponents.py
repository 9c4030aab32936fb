"""Log-densities of mixtures of many normals, by matrix products that stream over tiles."""

import math
from typing import final

import torch
from torch import Tensor

__all__ = ["NEGLIGIBLE", "Exponents", "diagonal_exponents", "full_exponents"]

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
        self._weights, self._offsets = weights / math.log(2), offsets / math.log(2)

    def log_prob(self, points: Tensor) -> Tensor:
        """Return the log-density at points, (points, L) in float64, of shape (points,)."""
        points = points - self.center
        densities = [self._log_prob(tile) for tile in points.split(_POINTS)]
        return math.log(2) * torch.cat(densities) if densities else points.sum(-1)

    def _log_prob(self, points: Tensor) -> Tensor:
        features = torch.cat([self._squares(points), points], -1).to(self._weights.dtype)
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
