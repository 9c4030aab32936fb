"""Networks with known shapes: any number of batch dimensions, measured shapes, linear heads."""

from collections.abc import Sequence
from math import prod
from typing import final

import torch
from torch import Tensor, nn

from pyro_dpvae._checks import check_kind, check_positive_int, check_shape
from pyro_dpvae.nn.ladder import LadderEncoder, LadderHead, check_latents
from pyro_dpvae.nn.modes import in_evaluation

__all__ = ["Batched", "at_least_float32", "measured", "with_head"]


@final
class Batched(nn.Module):
    """A network with known shapes: (*batch, *in_shape) -> (*batch, *out_shape).

    Folds all leading dimensions into one, as convolutions and batch norm expect. If the body runs
    in a precision below float32, as under ``torch.autocast``, the output is returned in float32,
    in which densities are computed.

    Args:
        body: the network, (N, *in_shape) -> (N, *out_shape).
        in_shape: shape of one input item.
        out_shape: shape of one output item.

    Raises:
        ValueError: if a shape is empty or not positive; on call, if the trailing dimensions differ
            from ``in_shape``, or the body returns another shape than ``out_shape``.

    Example:
        >>> network = Batched(nn.Conv2d(1, 3, 1), in_shape=(1, 8, 8), out_shape=(3, 8, 8))
        >>> network(torch.zeros(1, 8, 8)).shape, network(torch.zeros(4, 2, 1, 8, 8)).shape
        (torch.Size([3, 8, 8]), torch.Size([4, 2, 3, 8, 8]))
    """

    def __init__(
        self, body: nn.Module, *, in_shape: Sequence[int], out_shape: Sequence[int]
    ) -> None:
        super().__init__()
        self.body = body
        self.in_shape = check_shape("in_shape", in_shape)
        self.out_shape = check_shape("out_shape", out_shape)

    def forward(self, x: Tensor) -> Tensor:
        """Map x of shape (*batch, *in_shape) to (*batch, *out_shape)."""
        split = x.ndim - len(self.in_shape)
        if split < 0 or x.shape[split:] != self.in_shape:
            expected = ", ".join(map(str, self.in_shape))
            raise ValueError(
                f"expected data of shape (..., {expected}), got {tuple(x.shape)}; reshape the "
                "data or build the network for their shape"
            )
        batch = x.shape[:split]
        # Not -1, which would be ambiguous for an empty batch.
        count = prod(batch)
        try:
            y = self.body(x.reshape(count, *self.in_shape))
        except RuntimeError as error:
            own = {one.dtype for one in self.body.parameters() if one.is_floating_point()}
            if not own or x.dtype in own or torch.is_autocast_enabled(x.device.type):
                raise
            raise TypeError(
                "data must have the dtype of the networks' parameters, "
                f"{', '.join(sorted(map(str, own)))}, got {x.dtype}; convert them, for example "
                "with x.float(), or x.float() / 255 for images of 8 bits"
            ) from error
        if y.shape != (count, *self.out_shape):
            raise ValueError(
                f"the body must return the shape {(count, *self.out_shape)}, "
                f"got {tuple(y.shape)}; correct out_shape or the body's last layer"
            )
        return at_least_float32(y.reshape(*batch, *self.out_shape))


def at_least_float32(y: Tensor) -> Tensor:
    """Return a tensor of lower precision in float32, any other unchanged."""
    return y.float() if y.dtype in (torch.bfloat16, torch.float16) else y


_RULE = (
    "a torch.nn.Module from a batch (N, *in_shape) to a batch (N, *out_shape); wrap a function "
    "in a module"
)


def measured(network: nn.Module, *, in_shape: Sequence[int] | None = None) -> Batched:
    """Wrap a module with known shapes, determined by one pass with two items of zeros.

    The pass is in evaluation mode and changes only the parameters of lazy layers, which it
    creates.

    Args:
        network: (N, *in_shape) -> (N, *out_shape). A network with known shapes is returned as it
            is.
        in_shape: shape of one input item; None takes it from the first layer, if that is a
            ``torch.nn.Linear``.

    Raises:
        TypeError: if the network is not a module.
        ValueError: if its shapes are neither known nor given, or it does not accept such data.

    Example:
        >>> measured(nn.Sequential(nn.Linear(2, 6), nn.Unflatten(1, (2, 3)))).out_shape
        (2, 3)
        >>> measured(nn.Conv2d(1, 4, 3), in_shape=(1, 8, 8)).out_shape
        (4, 6, 6)
    """
    check_kind("network", network, nn.Module, rule=_RULE)
    if isinstance(network, Batched):
        if in_shape is not None and network.in_shape != tuple(in_shape):
            raise ValueError(
                f"the network takes data of shape {network.in_shape}, but in_shape is "
                f"{tuple(in_shape)}; leave in_shape out, or build the network for it"
            )
        return network
    if in_shape is None:
        in_shape = _of_first_layer(network)
    shape = check_shape("in_shape", in_shape)
    y = _of_two_zeros(network, shape)
    if not isinstance(y, Tensor) or y.ndim < 2 or len(y) != 2:
        got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(
            f"the network must return a tensor (N, *out_shape) for data (N, {_listed(shape)}), "
            f"got {got} for N = 2; change its last layer"
        )
    return Batched(network, in_shape=shape, out_shape=y.shape[1:])


def _of_first_layer(network: nn.Module) -> tuple[int, ...]:
    first = next(one for one in network.modules() if not list(one.children()))
    if isinstance(first, nn.Linear) and not isinstance(first, nn.LazyLinear):
        return (first.in_features,)
    raise ValueError(
        "the network's input shape is unknown: its first layer, "
        f"{type(first).__name__}, does not tell; set in_shape, such as (1, 28, 28) for images "
        "or (20,) for vectors of 20"
    )


def _of_two_zeros(network: nn.Module, shape: tuple[int, ...]) -> object:
    """Return the network's output for a batch of two items."""
    parameter = next(network.parameters(), None)
    like = torch.get_default_dtype() if parameter is None else parameter.dtype
    x = torch.zeros(2, *shape, dtype=like, device=None if parameter is None else parameter.device)
    try:
        with torch.no_grad(), in_evaluation(network, others=False):
            return network(x)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ValueError(
            f"the network does not accept a batch of shape (2, {_listed(shape)}): {error}; set "
            "in_shape to the shape of one item, or change its first layer"
        ) from error


def _listed(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))


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
