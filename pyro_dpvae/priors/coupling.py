"""The decoupled prior: N(0, I) pushed through affine couplings that are learned with the VAE."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import final

import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.distributions.transforms import AffineCoupling, Permute
from torch import Tensor, nn

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.nn import at_least_float32
from pyro_dpvae.priors._base import AbstractPrior

__all__ = ["CouplingPrior"]


@final
class CouplingPrior(AbstractPrior):
    """The decoupled prior of a dpVAE: z0 ~ N(0, I), z = g^-1(z0), with g a stack of couplings.

    A block keeps one half of its input, a, and moves the other, b, towards representation
    space by ``b <- b * exp(s(a)) + t(a)``; the halves change roles from block to block. With
    the K scalings s_k met on the way,

        log p(z) = log N(g(z); 0, I) - sum_k sum_j s_kj.

    Every block has two networks, s and t, with leaky ReLU between their layers and ``bound`` on
    their output. With the default tanh, each coordinate's scale stays within exp(+-blocks / 2).

    A distribution from ``prior()`` belongs to the parameters as they are then: its transforms
    remember tensors by identity, so call ``prior()`` again after an update.

    Args:
        latent_dim: the size L of z, at least 2.
        blocks: the number K of couplings.
        hidden: the widths of the hidden layers of s and t.
        bound: the function on the output of s and t, element by element.

    Raises:
        ValueError: if ``latent_dim`` is below 2, or another size below 1.

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs: Fixing Sample Generation for Regularized VAEs,
        sections 3.2 and 4.2. Dinh, Sohl-Dickstein, Bengio (2017), Density estimation using Real
        NVP, equations 7 and 8.

    Example:
        >>> prior = CouplingPrior(2)
        >>> z = prior().sample((5,))
        >>> z0, log_det = prior.to_generation(z)
        >>> bool(torch.allclose(prior.to_representation(z0), z, atol=1e-5))
        True
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        blocks: int = 6,
        hidden: Sequence[int] = (64, 64),
        bound: Callable[[Tensor], Tensor] = torch.tanh,
    ) -> None:
        super().__init__(latent_dim)
        if latent_dim < 2:
            raise ValueError(
                "latent_dim must be at least 2 for a coupling prior, "
                f"got {latent_dim}; use StandardNormal({latent_dim})"
            )
        self.blocks = check_positive_int("blocks", blocks)
        first = latent_dim // 2
        kept = [first if block % 2 == 0 else latent_dim - first for block in range(blocks)]
        self.couplings = nn.ModuleList(
            _ScaleAndShift(size, latent_dim - size, hidden=hidden, bound=bound) for size in kept
        )
        order = torch.arange(latent_dim)
        self.register_buffer("second_half_first", order.roll(-first), persistent=False)
        self.register_buffer("first_half_first", order.roll(first), persistent=False)

    def forward(self) -> dist.TransformedDistribution:
        """Return p(z), of batch shape () and event shape (L,)."""
        base = dist.Normal(self.base_loc, self.base_scale).to_event(1)
        return dist.TransformedDistribution(base, self._transforms())

    def to_generation(
        self, z: Float[Tensor, "*batch latent"]
    ) -> tuple[Float[Tensor, "*batch latent"], Float[Tensor, "*batch"]]:
        """Return z0 = g(z) and log |det dg/dz|."""
        log_det = z.new_zeros(z.shape[:-1])
        for transform in reversed(self._transforms()):
            z0 = transform.inv(z)
            log_det = log_det - transform.log_abs_det_jacobian(z0, z)
            z = z0
        return z, log_det

    def to_representation(
        self, z0: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return z = g^-1(z0)."""
        for transform in self._transforms():
            z0 = transform(z0)
        return z0

    def _transforms(self) -> list[dist.transforms.Transform]:
        # Made anew each time: a coupling caches its last input and output by identity, which
        # would answer for parameters of the past, and would keep a copy of the module from
        # being taken after a gradient step.
        transforms: list[dist.transforms.Transform] = []
        for block, network in enumerate(self.couplings):
            coupling = AffineCoupling(network.kept, network)
            if block % 2 == 0:
                transforms.append(coupling)
            else:
                swap = Permute(self.second_half_first)
                swap_back = Permute(self.first_half_first)
                transforms.extend([swap, coupling, swap_back])
        return transforms


class _ScaleAndShift(nn.Module):
    """The two networks of a coupling: kept half (*batch, kept) -> t, s, each (*batch, moved)."""

    def __init__(
        self,
        kept: int,
        moved: int,
        *,
        hidden: Sequence[int],
        bound: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.kept = kept
        self.bound = bound
        self.scale = _perceptron([kept, *hidden, moved])
        self.shift = _perceptron([kept, *hidden, moved])

    def forward(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        # Bounded in float32: log-determinants add up over blocks, whatever the networks ran in.
        shift, scale = at_least_float32(self.shift(kept)), at_least_float32(self.scale(kept))
        return self.bound(shift), self.bound(scale)


def _perceptron(sizes: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        check_positive_int("every width in hidden", outputs)
        layers += [nn.Linear(inputs, outputs), nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers[:-1])
