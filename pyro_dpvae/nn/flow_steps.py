"""Steps of flows: invertible maps of z, elementwise affine, with or without a context."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_dpvae.nn.conditioned import ConditionedPerceptron, OneByOne, autoregressive_masks

__all__ = ["AbstractStep", "AutoregressiveStep", "CouplingStep"]

Points = Float[Tensor, "*batch latent"]
Contexts = Float[Tensor, "*#batch context"]
Values = Float[Tensor, "*batch"]

# Bound of a step's log scale: each step scales by at most e^2.
_MOST_LOG_SCALE = 2.0


class AbstractStep(nn.Module, ABC):
    """An invertible map z -> z' = exp(a) * z + t of vectors, given a context h.

    A network computes log scales a and shifts t from h and other coordinates of z; a lies in (-2,
    2). Both directions also return log |det dz'/dz| = sum a. The context h broadcasts against z;
    it must be None exactly if the context size is 0.
    """

    @abstractmethod
    def forward(self, z: Points, h: Contexts | None) -> tuple[Points, Values]:
        """Return z' and log |det dz'/dz|."""

    @abstractmethod
    def inverse(self, z: Points, h: Contexts | None) -> tuple[Points, Values]:
        """Return the z that is mapped to the argument, and log |det dz'/dz| there."""


@final
class AutoregressiveStep(AbstractStep):
    """A step whose a_i and t_i depend on the coordinates of z before i, and on h.

    ``forward`` is one pass of the network; ``inverse`` finds one coordinate after another, and
    computes each hidden unit as soon as it can.

    Args:
        size: size L of z.
        context: size of h, or 0.
        hidden: widths of the network's hidden layers.
        backwards: reverse the order of coordinates.
        mean_only: fix a = 0, so that the step only shifts and log-determinants are zero.
        direct: let coordinates before i also act on a_i and t_i linearly, past the hidden layers.

    References:
        Kingma et al. (2016), Improved variational inference with inverse autoregressive flow,
        equation 10. We bound log scales instead of its sigmoid gate, so that a step can stretch as
        well as shrink.

    Example:
        >>> step = AutoregressiveStep(3, context=4, hidden=(8,))
        >>> z, h = torch.randn(5, 3), torch.randn(5, 4)
        >>> bool(torch.allclose(step.inverse(step(z, h)[0], h)[0], z, atol=1e-5))
        True
    """

    def __init__(
        self,
        size: int,
        *,
        context: int,
        hidden: Sequence[int],
        backwards: bool = False,
        mean_only: bool = False,
        direct: bool = False,
    ) -> None:
        super().__init__()
        self.order = tuple(reversed(range(size))) if backwards else tuple(range(size))
        self.mean_only = mean_only
        outputs = 1 if mean_only else 2
        (past,) = autoregressive_masks(size, (), outputs=outputs, backwards=backwards)
        self.network = ConditionedPerceptron(
            [size, *hidden, outputs * size],
            context=context,
            masks=autoregressive_masks(size, hidden, outputs=outputs, backwards=backwards),
            direct=past if direct else None,
        )

    def forward(self, z: Points, h: Contexts | None) -> tuple[Points, Values]:
        """Return z' and log |det dz'/dz|."""
        raw = self.network(z, _of_context(self.network, h))
        shift, log_scale = (
            (raw, torch.zeros_like(raw)) if self.mean_only else _shift_and_log_scale(raw)
        )
        return log_scale.exp() * z + shift, log_scale.sum(-1)

    def inverse(self, z: Points, h: Contexts | None) -> tuple[Points, Values]:
        """Return the z that is mapped to the argument, and log |det dz'/dz| there."""
        context_part = _of_context(self.network, h)
        if context_part is not None:
            width = context_part.shape[-1]
            context_part = context_part.expand(*z.shape[:-1], width).reshape(-1, width)
        raw_of = OneByOne(self.network, self.order, context_part)
        rows = z.reshape(-1, z.shape[-1]).T
        found, log_det = rows[:0], torch.zeros_like(rows[0])
        for i in self.order:
            raw = raw_of.outputs(found)
            new = rows[i] - raw[0]
            if not self.mean_only:
                _, log_scale = _shift_and_log_scale(raw, 0)
                new, log_det = new * (-log_scale[0]).exp(), log_det + log_scale[0]
            found = torch.cat([found, new.unsqueeze(0)])
        places = sorted(range(len(self.order)), key=self.order.__getitem__)
        return found[places].T.reshape(z.shape), log_det.reshape(z.shape[:-1])


@final
class CouplingStep(AbstractStep):
    """A step that changes one half of z, with a and t computed from the other half and h.

    Both directions need one pass of the network.

    Args:
        size: size L of z, at least 2.
        context: size of h.
        hidden: widths of the network's hidden layers.
        backwards: change the first half instead of the second.

    References:
        Dinh, Sohl-Dickstein, Bengio (2017), Density estimation using Real NVP, equations 7 and 8.

    Example:
        >>> step = CouplingStep(3, context=4, hidden=(8,))
        >>> z, h = torch.randn(5, 3), torch.randn(5, 4)
        >>> bool(torch.allclose(step.inverse(step(z, h)[0], h)[0], z, atol=1e-5))
        True
    """

    def __init__(
        self, size: int, *, context: int, hidden: Sequence[int], backwards: bool = False
    ) -> None:
        super().__init__()
        self.sizes = (size // 2, size - size // 2)
        self.kept, self.moved = (1, 0) if backwards else (0, 1)
        kept, moved = self.sizes[self.kept], self.sizes[self.moved]
        self.network = ConditionedPerceptron([kept, *hidden, 2 * moved], context=context)

    def forward(self, z: Points, h: Contexts | None) -> tuple[Points, Values]:
        """Return z' and log |det dz'/dz|."""
        halves = list(z.split(self.sizes, -1))
        shift, log_scale = self._shift_and_log_scale(halves, h)
        halves[self.moved] = log_scale.exp() * halves[self.moved] + shift
        return torch.cat(halves, -1), log_scale.sum(-1)

    def inverse(self, z: Points, h: Contexts | None) -> tuple[Points, Values]:
        """Return the z that is mapped to the argument, and log |det dz'/dz| there."""
        halves = list(z.split(self.sizes, -1))
        shift, log_scale = self._shift_and_log_scale(halves, h)
        halves[self.moved] = (halves[self.moved] - shift) * (-log_scale).exp()
        return torch.cat(halves, -1), log_scale.sum(-1)

    def _shift_and_log_scale(
        self, halves: Sequence[Tensor], h: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return _shift_and_log_scale(self.network(halves[self.kept], _of_context(self.network, h)))


def _of_context(network: ConditionedPerceptron, h: Tensor | None) -> Tensor | None:
    return None if h is None else network.of_context(h)


def _shift_and_log_scale(raw: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
    shift, log_scale = raw.chunk(2, dim)
    return shift, _MOST_LOG_SCALE * torch.tanh(log_scale / _MOST_LOG_SCALE)
