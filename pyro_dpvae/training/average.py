"""The exponential moving average of weights, which is evaluated in their place."""

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

    so that early averages forget the start. Buffers, such as running means of batch norm, are
    those of the modules as they are.

    Args:
        modules: by name, such as model and guide; parameters that they share are averaged once.
        decay: in (0, 1), such as 0.999: the average is over the last 1 / (1 - decay) updates.

    Raises:
        ValueError: if ``decay`` is not in (0, 1).

    Attributes:
        updates: how many updates it has seen.

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
        self._weights = _parameters(self.modules)
        self._averages = [weight.detach().clone() for weight in self._weights]

    @torch.no_grad()
    def update(self) -> None:
        """Take on the weights after an update."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay)
        self.updates += 1

    @torch.no_grad()
    def restart(self) -> None:
        """Begin at the weights as they are, after a change that was no update."""
        torch._foreach_copy_(self._averages, self._weights)
        self.updates = 0

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The average in place of the weights, which are as before at the end."""
        with torch.no_grad():
            before = [weight.detach().clone() for weight in self._weights]
            torch._foreach_copy_(self._weights, self._averages)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._weights, before)

    def parts(self) -> dict[str, "AveragedModule"]:
        """Return the average of each module, as a checkpoint holds it, by the module's name."""
        return {name: AveragedModule(self, module) for name, module in self.modules.items()}

    @torch.no_grad()
    def take_on(self, module: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Take on the averages of a module's parameters, by their names in it.

        Raises:
            ValueError: if one is missing, or of another shape.
        """
        own = {
            id(weight): mean for weight, mean in zip(self._weights, self._averages, strict=True)
        }
        for key, weight in module.named_parameters(remove_duplicate=False):
            mean = state.get(key)
            if mean is None or mean.shape != weight.shape:
                raise ValueError(
                    f"an average has every parameter in its shape, and of {key} "
                    f"{tuple(weight.shape)} it has {None if mean is None else tuple(mean.shape)}; "
                    "take one of these modules"
                )
            own[id(weight)].copy_(mean)


@final
class AveragedModule:
    """The average of one module: its state dict with the averages as parameters.

    Args:
        average: of this and other modules.
        module: the one.
    """

    def __init__(self, average: Average, module: nn.Module) -> None:
        self._average, self._module = average, module

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state dict of the module with the average in use, as copies."""
        with self._average.in_use():
            state = self._module.state_dict()
            return {key: tensor.detach().clone() for key, tensor in state.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take on averages.

        Raises:
            ValueError: if one is missing, or of another shape.
        """
        self._average.take_on(self._module, state)


def check_decay(decay: int | float) -> float:
    """Return the decay of an average.

    Raises:
        ValueError: if it is not in (0, 1).
    """
    if not 0 < decay < 1:
        raise ValueError(
            f"average_decay must lie between 0 and 1, got {decay}; use 0.999 to average over "
            "about 1,000 updates"
        )
    return float(decay)


def _parameters(modules: Mapping[str, nn.Module]) -> list[Tensor]:
    every = [weight for module in modules.values() for weight in module.parameters()]
    return list({id(weight): weight for weight in every}.values())
