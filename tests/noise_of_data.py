"""Random numbers that belong to data: the same for a datum, however a batch is cut."""

from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils._python_dispatch import TorchDispatchMode

_FACTORS = (0.6180339887, 1.7320508076, 3.1415926536, 5.3851648071)


class NoiseOfData(TorchDispatchMode):
    """Makes what random operations return a function of the place in the whole batch.

    Torch's generator goes on by one draw for each operation, whatever its shape.

    Args:
        size: how many data a batch has here; the dimension of this size is the batch's.
        first: the place of the first of them in the whole batch.
    """

    def __init__(self, size: int, *, first: int = 0) -> None:
        super().__init__()
        self.size, self.first = size, first

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if torch.Tag.nondeterministic_seeded not in operation.tags:
            return operation(*args, **(kwargs or {}))
        if get_proxy_mode() is not None:  # a recorder, which is to see the operation itself
            return operation(*args, **(kwargs or {}))
        before = torch.get_rng_state()
        result = operation(*args, **(kwargs or {}))
        torch.set_rng_state(before)
        return result.copy_(self._draws(str(operation), result.shape))

    def _draws(self, operation: str, shape: torch.Size) -> Tensor:
        mixed = torch.randint(10_000, (), dtype=torch.float64)
        batch = list(shape).index(self.size) if self.size in shape else None
        for place, size in enumerate(shape):
            index = torch.arange(1.0, size + 1, dtype=torch.float64)
            index = index + (self.first if place == batch else 0)
            right = len(shape) - 1 - place
            mixed = mixed + (index * _FACTORS[right]).reshape(-1, *[1] * right)
        uniform = (torch.sin(mixed) * 43758.5453).remainder(1.0).clamp(1e-9, 1 - 1e-9)
        if "normal" in operation or "randn" in operation:
            return torch.special.ndtri(uniform)
        if "exponential" in operation:
            return -uniform.log()
        if "rand" in operation or "uniform" in operation:
            return uniform
        raise NotImplementedError(operation)
