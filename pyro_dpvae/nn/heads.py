"""Heads: linear layers that turn a network's features into parameters of q(z | x)."""

from collections.abc import Sequence
from math import prod

from torch import nn

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.nn.batched import Batched, measured
from pyro_dpvae.nn.ladder import LadderEncoder, LadderHead, check_latents

__all__ = ["with_head"]


def with_head(
    network: nn.Module, latent_dim: int, *, in_shape: Sequence[int] | None, extra: int = 0
) -> Batched:
    """Add a linear head to a network of data: x -> (mu, log sigma^2, extra).

    A ladder gets a linear layer for each latent layer.

    Args:
        network: x -> features, of any shape; it becomes part of the result.
        latent_dim: size L of mu and of log sigma^2.
        in_shape: shape of an item, as for :func:`measured`.
        extra: number of further outputs.

    Returns:
        the network, with out_shape (2 L + extra,).

    Raises:
        TypeError: if the network is not a module, or a size not an integer.
        ValueError: if a size is below 1, the network takes other data, or it is a ladder whose
            layers do not add up to L.

    Example:
        >>> with_head(nn.Sequential(nn.Linear(3, 8), nn.ReLU()), 2, in_shape=None).out_shape
        (4,)
    """
    check_positive_int("latent_dim", latent_dim)
    trunk = measured(network, in_shape=in_shape)
    outputs = 2 * latent_dim + extra
    head: nn.Module = nn.Linear(prod(trunk.out_shape), outputs)
    for module in trunk.modules():
        if isinstance(module, LadderEncoder):
            check_latents(latent_dim, module.latent_dims)
            head = LadderHead(module, extra=extra)
    flat = [nn.Flatten()] if len(trunk.out_shape) > 1 else []
    body = nn.Sequential(trunk.body, *flat, head)
    return Batched(body, in_shape=trunk.in_shape, out_shape=(outputs,))
