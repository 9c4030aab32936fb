"""A network with a stated input and output shape, for any number of batch dimensions."""

import math
from collections.abc import Sequence
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from pyro_dpvae._checks import check_shape

__all__ = ["Batched"]


@final
class Batched(nn.Module):
    """A network that takes one batch dimension, made to take any number of them.

    Pyro draws z of shape (particles, batch, L) as readily as (batch, L); the dimensions on the
    left of ``in_shape`` are folded into one for the network and restored behind it.

    Args:
        body: the network, (batch, *in_shape) -> (batch, *out_shape) up to the order of elements.
        in_shape: the shape of one input.
        out_shape: the shape of one output.

    Raises:
        ValueError: on a call, if the input does not end in ``in_shape``.

    Example:
        >>> import torch
        >>> network = Batched(nn.Linear(3, 4), in_shape=(3,), out_shape=(2, 2))
        >>> network(torch.zeros(5, 6, 3)).shape
        torch.Size([5, 6, 2, 2])
    """

    def __init__(
        self, body: nn.Module, *, in_shape: Sequence[int], out_shape: Sequence[int]
    ) -> None:
        super().__init__()
        self.body = body
        self.in_shape = check_shape("in_shape", in_shape)
        self.out_shape = check_shape("out_shape", out_shape)

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the network's output, of shape (*batch, *out_shape)."""
        dims = len(self.in_shape)
        if x.dim() <= dims or tuple(x.shape[-dims:]) != self.in_shape:
            expected = ", ".join(map(str, ("batch", *self.in_shape)))
            raise ValueError(
                f"this network takes data of shape ({expected}), got {tuple(x.shape)}; "
                "reshape the data or build the network for their shape"
            )
        batch = x.shape[:-dims]
        y = self.body(x.reshape(math.prod(batch), *self.in_shape))
        return y.reshape(*batch, *self.out_shape)
