"""Kernel distance, precision and recall of two sets of features."""

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.metrics.estimate import Estimate, Settings, mean_estimate, share_estimate
from pyro_dpvae.objectives.penalties.mmd import mmd_squared

__all__ = ["kernel_distance", "precision_and_recall"]

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
