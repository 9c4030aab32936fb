"""The exponential moving average of the weights, which is evaluated instead of the weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor, nn

__all__ = ["Average", "check_decay"]


@final
class Average:
    """The exponential moving average of modules' parameters over updates t = 0, 1, ...

        average <- d_t average + (1 - d_t) weights,    d_t = min(decay, (1 + t) / (10 + t)),

    which weights recent updates more at the start. Buffers, such as the running means of batch
    norm, are not averaged.

    Args:
        modules: modules by name, such as model and guide; shared parameters are averaged once.
        decay: decay rate in (0, 1), such as 0.999: averages over the last 1 / (1 - decay) updates.

    Raises:
        ValueError: if ``decay`` is not in (0, 1).

    Attributes:
        updates: the number of updates averaged so far.

    References:
        Polyak, Juditsky (1992), Acceleration of stochastic approximation by averaging. The warm-up
        of the decay is TensorFlow's ``ExponentialMovingAverage(num_updates=t)``.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.ones_(layer.weight)
        >>> average = Average({"model": layer}, decay=0.999)
        >>> _ = nn.init.zeros_(layer.weight)
        >>> average.update()
        >>> with average.in_use():
        ...     round(layer.weight.item(), 4)
        0.1
        >>> layer.weight.item()
        0.0
    """

    def __init__(self, modules: Mapping[str, nn.Module], *, decay: int | float) -> None:
        self.modules = dict(modules)
        self.decay = check_decay(decay)
        self.updates = 0
        every: list[Tensor] = [
            weight for module in modules.values() for weight in module.parameters()
        ]
        self._weights = list({id(weight): weight for weight in every}.values())
        self._averages = [weight.detach().clone() for weight in self._weights]

    @torch.no_grad()
    def update(self) -> None:
        """Add the weights after an update to the average."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay)
        self.updates += 1

    @torch.no_grad()
    def restart(self) -> None:
        """Restart the average at the current weights, after they changed without an update."""
        torch._foreach_copy_(self._averages, self._weights)
        self.updates = 0

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Use the average as the weights inside the context; restore the weights at the end."""
        with torch.no_grad():
            before = [weight.detach().clone() for weight in self._weights]
            torch._foreach_copy_(self._weights, self._averages)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._weights, before)

    def parts(self) -> dict[str, "AveragedModule"]:
        """Return the average of each module by its name, in the form that a checkpoint stores."""
        return {name: AveragedModule(self, module) for name, module in self.modules.items()}


@final
class AveragedModule:
    """The average of one module: its state dict with averages in place of the parameters.

    Args:
        average: the average over this and other modules.
        module: the module.
    """

    def __init__(self, average: Average, module: nn.Module) -> None:
        self._average, self._module = average, module

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of the module's state dict with the average in use."""
        with self._average.in_use():
            state = self._module.state_dict()
            return {key: tensor.detach().clone() for key, tensor in state.items()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load the averages of the module's parameters.

        Raises:
            ValueError: if an average is missing or has another shape than its parameter.
        """
        average = self._average
        own = dict(zip(map(id, average._weights), average._averages, strict=True))
        for key, weight in self._module.named_parameters(remove_duplicate=False):
            mean = state.get(key)
            if mean is None or mean.shape != weight.shape:
                raise ValueError(
                    f"averaged weights must match every parameter: {key} has shape "
                    f"{tuple(weight.shape)}, got {None if mean is None else tuple(mean.shape)}; "
                    "load an average of the same modules"
                )
            own[id(weight)].copy_(mean)


def check_decay(decay: int | float) -> float:
    """Return the decay rate of a weight average after checking it.

    Raises:
        ValueError: if it is not in (0, 1).
    """
    if not 0 < decay < 1:
        raise ValueError(
            f"average_decay must lie between 0 and 1, got {decay}; use 0.999 to average over "
            "about 1,000 updates"
        )
    return float(decay)
