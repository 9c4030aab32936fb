"""The decoupled prior: a base distribution transformed by learned affine couplings."""

from collections.abc import Callable, Sequence
from typing import Any, cast, final

import pyro.distributions as dist
import torch
from jaxtyping import Float, Int
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.distributions.transforms import AffineCoupling, Permute
from pyro.distributions.transforms.utils import clamp_preserve_gradients
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.nn import at_least_float32, has_kinks
from pyro_dpvae.nn.activations import Activation
from pyro_dpvae.nn.linearization import linearized, push_through
from pyro_dpvae.nn.mlp import perceptron
from pyro_dpvae.priors._base import AbstractPrior, LinearizedMap, Matrices, Points, Values
from pyro_dpvae.priors.fixed import FixedPrior
from pyro_dpvae.priors.flow import FlowDistribution, FlowTransform
from pyro_dpvae.priors.mixture import MixturePrior

__all__ = ["CouplingPrior", "coupling_over_mixture"]

# The bounds of Pyro's AffineCoupling.
_LEAST_LOG_SCALE, _MOST_LOG_SCALE = -5.0, 3.0


@final
class CouplingPrior(AbstractPrior):
    """The decoupled prior of a dpVAE: z0 ~ p0, z = g^-1(z0), with g a stack of couplings.

    A block keeps one half of its input, a, and moves the other, b, towards representation space by
    ``b <- b * exp(s(a)) + t(a)``; the halves alternate. With the log scales s_k of the K blocks,

        log p(z) = log p0(g(z)) - sum_k sum_j s_kj.

    By default p0 = N(0, I), as in the paper, or it is another prior; the paper names other base
    distributions as future work. With a ``MixturePrior`` as the base, clusters exist in
    representation space too, p(z | y) = p0(g(z) | y) |det dg/dz|, which is our extension.

    ``composed()`` is the definition by Pyro's own transforms; ``prior()`` computes the same
    faster. Its distribution always uses the current parameters of the couplings, but those of a
    base at the time of the call.

    Args:
        latent_dim: size L of z, at least 2.
        blocks: number K of couplings.
        hidden: widths of the hidden layers of s and t.
        bound: elementwise function of the output of s and t.
        activation: activation of the hidden layers. With the authors' ``leaky-relu`` (0.01) the
            score grad log p(z) is not continuous: ``SteinDiscrepancy`` raises an error, and
            gradients of Laplace and semi-amortized guides are biased. With ``silu`` they are
            correct.
        base: the prior p0, or a fixed Pyro distribution, over L coordinates; None is N(0, I).

    Raises:
        ValueError: if ``latent_dim`` is below 2, another size below 1, or the base has another
            size.

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
        activation: Activation = "silu",
        base: AbstractPrior | Distribution | None = None,
    ) -> None:
        super().__init__(latent_dim)
        if latent_dim < 2:
            raise ValueError(
                "latent_dim must be at least 2 for a coupling prior, "
                f"got {latent_dim}; use StandardNormal({latent_dim})"
            )
        if base is not None and not isinstance(base, AbstractPrior):
            base = FixedPrior(base)
        if base is not None and base.latent_dim != latent_dim:
            raise ValueError(
                f"base must have latent_dim {latent_dim}, got {base.latent_dim}; build both for "
                "one size"
            )
        self.base_prior = base
        self.blocks = check_positive_int("blocks", blocks)
        first = latent_dim // 2
        kept = [first if block % 2 == 0 else latent_dim - first for block in range(blocks)]
        self.couplings = nn.ModuleList(
            _ScaleAndShift(n, latent_dim - n, hidden=hidden, bound=bound, activation=activation)
            for n in kept
        )
        order = torch.arange(latent_dim)
        self.register_buffer("second_half_first", order.roll(-first), persistent=False)
        self.register_buffer("first_half_first", order.roll(first), persistent=False)

    def forward(self) -> FlowDistribution:
        """Return p(z), of batch shape () and event shape (L,)."""
        return self._pushed(self.base())

    def base(self) -> TorchDistributionMixin:
        """Return p0, the distribution of z0, of batch shape () and event shape (L,)."""
        return super().base() if self.base_prior is None else self.base_prior()

    @property
    def has_smooth_score(self) -> bool:
        """True if the scores of couplings and base are continuous."""
        base = self.base_prior
        return not has_kinks(self.couplings) and (base is None or base.has_smooth_score)

    def cluster_prior(self) -> Any:
        """Return p(y) of the base."""
        return self._clustered().cluster_prior()

    def conditional(self, y: Int[Tensor, "*clusters"]) -> FlowDistribution:
        """Return p(z | y), the base's p0(z0 | y) transformed by the couplings."""
        return self._pushed(self._clustered().conditional(y))

    def log_joint(self, z: Points) -> Float[Tensor, "*batch clusters"]:
        """Return log p(y) + log p(z | y) of every cluster y, in nats."""
        z0, log_det = self.to_generation(z)
        return self._clustered().log_joint(z0) + log_det.unsqueeze(-1)

    def to_generation(self, z: Points) -> tuple[Points, Values]:
        """Return z0 = g(z) and log |det dg/dz|."""
        halves = self._halves(z)
        log_det = z.new_zeros(z.shape[:-1])
        for block in reversed(range(self.blocks)):
            kept, moved = block % 2, 1 - block % 2
            shift, log_scale = self._shift_and_log_scale(block, halves[kept])
            halves[moved] = (halves[moved] - shift) * torch.exp(-log_scale)
            log_det = log_det - log_scale.sum(-1)
        return torch.cat(halves, -1), log_det

    def linearize_generation(self, z: Points) -> LinearizedMap:
        """Return g and log |det dg/dz| with their derivatives at each point z."""
        halves = self._halves(z)
        directions = torch.eye(self.latent_dim, dtype=z.dtype, device=z.device)
        tangents = self._halves(directions.expand(len(z), -1, -1))
        log_det, log_det_gradient = z.new_zeros(len(z)), torch.zeros_like(z)
        for block in reversed(range(self.blocks)):
            kept, moved = block % 2, 1 - block % 2
            coupling = cast(_ScaleAndShift, self.couplings[block])
            values, derivatives = coupling.linearize(halves[kept], tangents[kept])
            shift, log_scale = values[0], _clipped(values[1])
            shrink = torch.exp(-log_scale)
            halves[moved] = (halves[moved] - shift) * shrink
            tangents[moved] = (tangents[moved] - derivatives[0]) * shrink.unsqueeze(-2)
            tangents[moved] = tangents[moved] - halves[moved].unsqueeze(-2) * derivatives[1]
            log_det = log_det - log_scale.sum(-1)
            log_det_gradient = log_det_gradient - derivatives[1].sum(-1)
        z0, jacobian = torch.cat(halves, -1), torch.cat(tangents, -1)
        return LinearizedMap(z0, log_det, jacobian, log_det_gradient)

    def to_representation(self, z0: Points) -> Points:
        """Return z = g^-1(z0)."""
        halves = self._halves(z0)
        for block in range(self.blocks):
            kept, moved = block % 2, 1 - block % 2
            shift, log_scale = self._shift_and_log_scale(block, halves[kept])
            halves[moved] = torch.exp(log_scale) * halves[moved] + shift
        return torch.cat(halves, -1)

    def composed(self) -> dist.TransformedDistribution:
        """Return p(z) composed of Pyro's ``AffineCoupling`` and ``Permute``, the definition.

        It equals ``prior()``, but is slower and only valid until parameters change, since Pyro's
        couplings cache their last input and output.

        Example:
            >>> prior = CouplingPrior(2)
            >>> z = torch.zeros(3, 2)
            >>> bool(torch.allclose(prior.composed().log_prob(z), prior().log_prob(z)))
            True
        """
        transforms: list[dist.transforms.Transform] = []
        for block, network in enumerate(self.couplings):
            coupling = AffineCoupling(
                network.kept,
                network,
                log_scale_min_clip=_LEAST_LOG_SCALE,
                log_scale_max_clip=_MOST_LOG_SCALE,
            )
            if block % 2 == 0:
                transforms.append(coupling)
            else:
                swap = Permute(self.second_half_first)
                swap_back = Permute(self.first_half_first)
                transforms.extend([swap, coupling, swap_back])
        return dist.TransformedDistribution(self.base(), transforms)

    def linearize_base(self, z0: Points) -> tuple[Points, Matrices | None]:
        """Return gradient and factor of log p0 at z0; None for the factor I."""
        if self.base_prior is None:
            return super().linearize_base(z0)
        there = self.base_prior.linearize_density(z0)
        return there.gradient, there.factor

    def extra_repr(self) -> str:
        """Return the size of z and the number of blocks, for the ``repr``."""
        return f"{super().extra_repr()}, blocks={self.blocks}"

    def _clustered(self) -> AbstractPrior:
        if self.base_prior is None:
            raise self._without_clusters()
        return self.base_prior

    def _pushed(self, base: TorchDistributionMixin) -> FlowDistribution:
        return FlowDistribution(base, FlowTransform(self))

    def _halves(self, z: Tensor) -> list[Tensor]:
        first = self.latent_dim // 2
        return list(z.split([first, self.latent_dim - first], -1))

    def _shift_and_log_scale(self, block: int, kept: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = self.couplings[block](kept)
        # Pyro clips all log scales to (-5, 3), which has no effect after a tanh.
        clips = self.couplings[block].bound is not torch.tanh
        return shift, _clipped(log_scale) if clips else log_scale


def coupling_over_mixture(
    latent_dim: int,
    *,
    blocks: int = 6,
    hidden: Sequence[int] = (64, 64),
    activation: Activation = "silu",
    components: int = 10,
    uniform: bool = False,
    spread: int | float = 1.0,
) -> CouplingPrior:
    """Return a ``CouplingPrior`` with a ``MixturePrior`` over generation space.

    Args:
        latent_dim: size L of z, at least 2.
        blocks: number of couplings.
        hidden: widths of the hidden layers of their networks.
        activation: activation of these hidden layers.
        components: number of components of the mixture.
        uniform: keep p(y) uniform.
        spread: standard deviation of the mixture's initial means.

    Example:
        >>> coupling_over_mixture(2, components=4).cluster_prior().probs.shape
        torch.Size([4])
    """
    base = MixturePrior(latent_dim, components=components, uniform=uniform, spread=spread)
    return CouplingPrior(
        latent_dim, blocks=blocks, hidden=hidden, activation=activation, base=base
    )


class _ScaleAndShift(nn.Module):
    """The networks t and s of a coupling: (*batch, kept) -> two times (*batch, moved)."""

    def __init__(
        self,
        kept: int,
        moved: int,
        *,
        hidden: Sequence[int],
        bound: Callable[[Tensor], Tensor],
        activation: Activation,
    ) -> None:
        super().__init__()
        self.kept = kept
        self.bound = bound
        self.scale = _network([kept, *hidden, moved], activation=activation)
        self.shift = _network([kept, *hidden, moved], activation=activation)

    def forward(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        # Bounded in float32, since log-determinants add up over blocks.
        shift, scale = at_least_float32(self.shift(kept)), at_least_float32(self.scale(kept))
        return self.bound(shift), self.bound(scale)

    def linearize(
        self, kept: Tensor, tangents: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return t and s, and their derivatives along tangents (batch, directions, kept)."""
        values, derivatives = [], []
        for network in (self.shift, self.scale):
            raw, maps = linearized(network, kept)
            value, pull = torch.func.vjp(self.bound, at_least_float32(raw))[:2]
            (gradient,) = pull(torch.ones_like(value))
            values.append(value)
            derivatives.append(push_through(maps, tangents) * gradient.unsqueeze(-2))
        return (values[0], values[1]), (derivatives[0], derivatives[1])


def _clipped(log_scale: Tensor) -> Tensor:
    return clamp_preserve_gradients(log_scale, _LEAST_LOG_SCALE, _MOST_LOG_SCALE)


def _network(sizes: Sequence[int], *, activation: Activation) -> nn.Sequential:
    layers = perceptron(sizes, activation=activation)[:-1]
    for layer in layers:
        if isinstance(layer, nn.LeakyReLU):
            # So that the gradient is computed from the output. Otherwise compiled code stores a
            # mask of the input's signs, which is slow on a CPU in torch 2.15.
            layer.inplace = True
    return nn.Sequential(*layers)
