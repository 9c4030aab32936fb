"""Distances of two sets: Frechet and kernel distance, precision and recall, nearest data."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae._subsets import as_batches
from pyro_dpvae.metrics.estimate import Estimate, Settings, mean_estimate, share_estimate
from pyro_dpvae.objectives.penalties.mmd import mmd_squared

__all__ = [
    "FeatureStatistics",
    "distance_to_data",
    "frechet_distance",
    "frechet_estimate",
    "kernel_distance",
    "precision_and_recall",
]


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


_TILE = 256  # rows of distances at once, which stay in a core's cache


def kernel_distance(
    samples: Float[Tensor, "samples features"],
    reference: Float[Tensor, "reference features"],
    *,
    block_size: int = 1000,
) -> Estimate:
    """Return the kernel distance, the unbiased MMD^2 with the kernel (a . b / F + 1)^3.

    It is the mean of the U-statistic over disjoint blocks of both sets; the standard error is from
    the spread of the blocks. With features of the Inception network it is KID.

    Args:
        samples: features of the samples.
        reference: features of the reference set, by the same network.
        block_size: data of each set in a block; fewer if there were less than ten blocks.

    Raises:
        ValueError: if a set has fewer than 4 data, or the numbers of features differ.

    References:
        Binkowski et al. (2018), Demystifying MMD GANs, section 4.

    Example:
        >>> draws = torch.randn(2, 500, 8)
        >>> estimate = kernel_distance(draws[0], draws[1])
        >>> abs(estimate.value) < 5 * estimate.standard_error
        True
    """
    _check(samples, reference, least=4)
    least = min(len(samples), len(reference))
    size = min(check_positive_int("block_size", block_size), max(2, least // 10))
    blocks = least // size
    # In a random order, since data may be sorted by class, and samples by density.
    generator = torch.Generator().manual_seed(0)
    a, b = (
        one[torch.randperm(len(one), generator=generator)[: blocks * size].to(one.device)]
        .double()
        .split(size)
        for one in (samples, reference)
    )
    values = [
        mmd_squared(_kernel(p, p), _kernel(q, q), _kernel(p, q)) for p, q in zip(a, b, strict=True)
    ]
    settings: Settings = {"samples": blocks * size, "reference": blocks * size, "block_size": size}
    return mean_estimate(torch.stack(values), settings)


def precision_and_recall(
    samples: Float[Tensor, "samples features"],
    reference: Float[Tensor, "reference features"],
    *,
    neighbours: int = 3,
) -> tuple[Estimate, Estimate]:
    """Return precision and recall of samples with respect to a reference set.

    Precision is the share of samples in the manifold of the reference; recall is the share of the
    reference in the manifold of the samples. A manifold is the union of balls around the points of
    a set; each ball reaches the k-th neighbour. Standard errors are those of a share.

    Args:
        samples: features of the samples.
        reference: features of the reference set, by the same network.
        neighbours: k.

    Raises:
        ValueError: if a set has no k neighbours, or the numbers of features differ.

    References:
        Kynkaanniemi et al. (2019), Improved precision and recall metric, equations 1 and 2.

    Example:
        >>> draws = torch.randn(400, 2)
        >>> precision, recall = precision_and_recall(draws[:200], draws[200:])
        >>> precision.value > 0.7, recall.value > 0.7
        (True, True)
    """
    _check(samples, reference, least=2)
    check_positive_int("neighbours", neighbours)
    least = min(len(samples), len(reference))
    if least <= neighbours:
        raise ValueError(
            f"both sets must have more than neighbours={neighbours} data, got {least}; draw more"
        )
    settings: Settings = {
        "samples": len(samples),
        "reference": len(reference),
        "neighbours": neighbours,
    }
    covered = _covered(samples, reference, neighbours), _covered(reference, samples, neighbours)
    precision, recall = (share_estimate(int(one.sum()), len(one), settings) for one in covered)
    return precision, recall


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _covered(points: Tensor, manifold: Tensor, neighbours: int) -> Tensor:
    """Return whether each point lies in a ball around a manifold point."""
    # Centred and in float64, since distances of large numbers lose digits.
    centre = manifold.double().mean(0)
    points, manifold = points.double() - centre, manifold.double() - centre
    radii = torch.cat(
        [
            # itself is the first; kthvalue takes twice the time
            torch.cdist(tile, manifold).topk(neighbours + 1, largest=False).values[:, -1]
            for tile in manifold.split(_TILE)
        ]
    )
    return torch.cat(
        [(torch.cdist(tile, manifold) <= radii).any(-1) for tile in points.split(_TILE)]
    )


def _check(samples: Tensor, reference: Tensor, *, least: int) -> None:
    if samples.shape[1] != reference.shape[1] or min(len(samples), len(reference)) < least:
        raise ValueError(
            f"samples and reference must have at least {least} data and one number of features, "
            f"got shapes {tuple(samples.shape)} and {tuple(reference.shape)}"
        )


def distance_to_data(samples: Tensor, data: Tensor) -> Estimate:
    """Return the mean Euclidean distance of samples to their nearest datum, in the data's units.

    Args:
        samples: of shape (samples, *data), at least 2.
        data: of shape (count, *data).

    Raises:
        ValueError: if shapes differ beyond the first dimension, or there are too few samples or
            data.

    Example:
        >>> print(distance_to_data(torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.zeros(3, 2)))
        1.5000 +- 0.5000
    """
    if samples.shape[1:] != data.shape[1:] or len(samples) < 2 or len(data) == 0:
        raise ValueError(
            "samples and data must have one shape, with at least two samples and one datum, "
            f"got shapes {tuple(samples.shape)} and {tuple(data.shape)}"
        )
    # Centred and in float64, since distances of large numbers lose digits.
    centre = data.double().flatten(1).mean(0)
    points, tiles = data.double().flatten(1) - centre, (samples.double().flatten(1) - centre)
    distances = torch.cat([torch.cdist(tile, points).amin(1) for tile in tiles.split(1024)])
    settings = {"samples": len(samples), "data": len(data)}
    return mean_estimate(distances, settings)
