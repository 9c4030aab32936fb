"""The Frechet distance between two sets of features: FID, if the network is Inception."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_dpvae._subsets import as_batches
from pyro_dpvae.metrics.estimate import Estimate

__all__ = ["FeatureStatistics", "frechet_distance", "frechet_estimate"]


@dataclass(frozen=True)
class FeatureStatistics:
    """Mean and covariance of the features of a set, in float64.

    Attributes:
        mean: of shape (features,).
        covariance: of shape (features, features), with the divisor count - 1.
        count: number of data.
    """

    mean: Tensor
    covariance: Tensor
    count: int

    @classmethod
    def of(cls, batches: Iterable[Tensor]) -> "FeatureStatistics":
        """Return the statistics of batches of features, (batch, features), in constant memory.

        Batches are merged about their means (Chan, Golub, LeVeque, 1983), which keeps the digits
        of features with large offsets.

        Raises:
            ValueError: if there are fewer than 2 data, or a feature is not finite.
        """
        count, mean, scatter = 0, torch.zeros(()), torch.zeros(())
        for features in as_batches(batches):
            rows = features.double()
            own = rows.mean(0)
            centred = rows - own
            if count == 0:
                count, mean, scatter = len(rows), own, centred.T @ centred
                continue
            shift = own - mean
            total = count + len(rows)
            weight = count * len(rows) / total
            scatter = scatter + centred.T @ centred + weight * torch.outer(shift, shift)
            mean = mean + shift * (len(rows) / total)
            count = total
        if count < 2:
            raise ValueError(f"features must be of at least 2 data, got {count}")
        if not scatter.isfinite().all():
            raise ValueError("features must be finite, got NaN or infinity")
        return cls(mean.cpu(), (scatter / (count - 1)).cpu(), count)


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """Return |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of two Gaussians, in float64.

    The trace of the root is computed from the eigenvalues of the symmetric C_a^(1/2) C_b
    C_a^(1/2).

    References:
        Dowson, Landau (1982), The Frechet distance between multivariate normal distributions.
        Heusel et al. (2017), GANs trained by a two time-scale update rule, equation 6.

    Example:
        >>> unit = FeatureStatistics(torch.zeros(2).double(), torch.eye(2).double(), 9)
        >>> shifted = FeatureStatistics(torch.ones(2).double(), 4 * torch.eye(2).double(), 9)
        >>> frechet_distance(unit, shifted)
        4.0
    """
    values, vectors = torch.linalg.eigh(a.covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp(min=0).sqrt().sum()
    shift = (a.mean - b.mean).square().sum()
    distance = shift + a.covariance.trace() + b.covariance.trace() - 2 * cross
    return max(float(distance), 0.0)


def frechet_estimate(
    features: Float[Tensor, "samples features"], reference: FeatureStatistics
) -> Estimate:
    """Return the Frechet distance of samples from a reference set, with its standard error.

    The standard error is due to the samples alone, by the influence of each sample x on the
    distance,

        2 (mu - mu_r) . (x - mu) + (x - mu)' (I - T) (x - mu),
        T = C^(-1/2) (C^(1/2) C_r C^(1/2))^(1/2) C^(-1/2),

    up to a constant. The bias of the distance is positive, and larger for fewer samples; compare
    only numbers of one sample size.

    Args:
        features: features of the samples.
        reference: statistics of the reference set, by the same network.

    Raises:
        ValueError: if the numbers of features differ.
    """
    if features.shape[1] != len(reference.mean):
        raise ValueError(
            "features and reference must come from one network, got "
            f"{features.shape[1]} and {len(reference.mean)} features per datum"
        )
    own = FeatureStatistics.of([features])
    values, vectors = torch.linalg.eigh(own.covariance)
    # The covariance has no inverse in directions without samples.
    kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    values, vectors = values[kept], vectors[:, kept]
    half = vectors * values.sqrt()
    inner_values, inner_vectors = torch.linalg.eigh(half.T @ reference.covariance @ half)
    middle = (inner_vectors * inner_values.clamp(min=0).sqrt()) @ inner_vectors.T
    centred = features.double().cpu() - own.mean
    coordinates = centred @ (vectors / values.sqrt())
    transported = ((coordinates @ middle) * coordinates).sum(-1)
    influence = 2 * centred @ (own.mean - reference.mean)
    influence = influence + centred.square().sum(-1) - transported
    error = float(influence.std()) / math.sqrt(len(features))
    settings = {"samples": len(features), "reference": reference.count}
    return Estimate(frechet_distance(own, reference), error, settings)
