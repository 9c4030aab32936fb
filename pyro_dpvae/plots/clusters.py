"""Component-wise generation: what each cluster of a ladder's layer looks like."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.nn.modes import in_evaluation
from pyro_dpvae.priors import AbstractPrior, ProductPrior

__all__ = ["cluster_codes"]


def cluster_codes(
    prior: ProductPrior, layer: int, *, count: int = 10
) -> Float[Tensor, "clusters count latent"]:
    """Return draws of z for each cluster y of a layer l, whose decoded values are of p(x | y_l).

        z_l ~ p(z_l | y_l = y),    z_m ~ p(z_m)  for every other layer m

    The other layers' draws are the same for each cluster, so that clusters compare.

    Args:
        prior: of the ladder.
        layer: l, counted from 1 at the data.
        count: how many draws for each cluster.

    Returns:
        Codes, of shape (K_l, count, L).

    Raises:
        ValueError: if there is no such layer, it has no clusters, or ``count`` is below 1.

    References:
        Willetts, Roberts, Holmes (2019), Disentangling to cluster, which shows such draws; what
        is drawn for the other layers is our reading.

    Example:
        >>> from pyro_dpvae.priors import MixturePrior, StandardNormal
        >>> prior = ProductPrior([StandardNormal(2), MixturePrior(3, components=4)])
        >>> cluster_codes(prior, 2, count=5).shape
        torch.Size([4, 5, 5])
    """
    check_positive_int("count", count)
    layers = [cast(AbstractPrior, one) for one in prior.priors]
    if not 1 <= layer <= len(layers):
        raise ValueError(f"layer must be one of 1 to {len(layers)}, bottom first, got {layer}")
    clustered = layers[layer - 1]
    with torch.no_grad(), in_evaluation(prior):
        every = clustered.cluster_prior().enumerate_support()
        number = len(every)
        parts = [one().sample((count,)).expand(number, -1, -1) for one in layers]
        parts[layer - 1] = clustered.conditional(every).sample((count,)).movedim(0, 1)
    return torch.cat(parts, -1)
