"""Distances of samples to the nearest datum."""

import torch
from torch import Tensor

from pyro_dpvae.metrics.estimate import Estimate, mean_estimate

__all__ = ["distance_to_data"]


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
