"""A wrapper that lets any network accept any number of batch dimensions."""

from collections.abc import Sequence
from math import prod
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_dpvae._checks import check_shape

__all__ = ["Batched", "at_least_float32"]


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

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
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
        y = self.body(x.reshape(count, *self.in_shape))
        if y.shape != (count, *self.out_shape):
            raise ValueError(
                f"the body must return the shape {(count, *self.out_shape)}, "
                f"got {tuple(y.shape)}; correct out_shape or the body's last layer"
            )
        return at_least_float32(y.reshape(*batch, *self.out_shape))


def at_least_float32(y: Tensor) -> Tensor:
    """Return a tensor of lower precision in float32, any other unchanged."""
    return y.float() if y.dtype in (torch.bfloat16, torch.float16) else y
