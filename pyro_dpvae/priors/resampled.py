"""The resampled prior: N(0, I) with learned rejection."""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, cast, final

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_dpvae._checks import check_positive_int, check_repeated
from pyro_dpvae.distributions import expanded
from pyro_dpvae.nn import at_least_float32
from pyro_dpvae.nn.linearization import batch_jacobian
from pyro_dpvae.nn.mlp import perceptron
from pyro_dpvae.priors._base import (
    AbstractDirectPrior,
    LinearizedDensity,
    Points,
    Values,
    identities,
)

__all__ = ["Acceptance", "Resampled", "ResampledPrior"]

# Number of proposals processed at once, with the network's hidden units of each.
_PROPOSALS = 2**17

# Factor of the last layer's weights, so that the acceptance starts near one half everywhere.
_INITIAL = 0.01


class Acceptance(NamedTuple):
    """An estimate of Z, the acceptance rate of proposals.

    Attributes:
        share: Z.
        standard_error: standard error of Z; divided by Z it is, to first order, that of log p(z).
    """

    share: Tensor
    standard_error: Tensor


@final
class Resampled(TorchDistribution):
    """The distribution of the first accepted of at most T proposals, or else of the last one.

        p(z) = pi(z) [a(z) / Z (1 - (1 - Z)^(T-1)) + (1 - Z)^(T-1)],    Z = E_pi[a(z)]

    Args:
        proposal: pi, of event shape (L,).
        log_acceptance: z -> log a(z), of shape (*batch, L) -> (*batch), at most 0.
        share: Z, of shape ().
        truncation: T, at least 2.

    Raises:
        ValueError: if ``truncation`` is below 2.

    References:
        Bauer, Mnih (2019), Resampled priors for variational autoencoders, section 3.

    Example:
        >>> half = torch.tensor(0.5)
        >>> proposal = dist.Normal(torch.zeros(1), torch.ones(1)).to_event(1)
        >>> p = Resampled(
        ...     proposal, log_acceptance=lambda z: half.log().expand(z.shape[:-1]), share=half
        ... )
        >>> p.log_prob(torch.zeros(1))  # every proposal alike: N(0, 1)
        tensor(-0.9189)
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = False

    def __init__(
        self,
        proposal: TorchDistributionMixin,
        *,
        log_acceptance: Callable[[Tensor], Tensor],
        share: Tensor,
        truncation: int = 100,
    ) -> None:
        self.proposal, self.log_acceptance = proposal, log_acceptance
        self.share = share
        self.truncation = _check_truncation(truncation, remedy="use the proposal itself")
        super().__init__(proposal.batch_shape, proposal.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(z), in nats."""
        if self._validate_args:
            self._validate_sample(value)
        return self.proposal.log_prob(value) + self.log_ratio(value)

    def log_ratio(self, value: Tensor) -> Tensor:
        """Return log p(z) - log pi(z)."""
        # Slightly inside (0, 1), since at 0 and 1 a logarithm would have no gradient.
        rounding = torch.finfo(self.share.dtype).eps
        share = self.share.clamp(rounding, 1 - rounding)
        log_all_refused = (self.truncation - 1) * (-share).log1p()
        log_one_accepted = (-log_all_refused.expm1()).log()
        accepted = self.log_acceptance(value) - share.log() + log_one_accepted
        return torch.logaddexp(accepted, log_all_refused.expand_as(accepted))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples, of shape (*sample_shape, *batch_shape, L), each from T proposals."""
        shape = torch.Size(sample_shape) + self.batch_shape
        at_once = min(max(1, _PROPOSALS // max(1, math.prod(shape))), self.truncation)
        drawn, found = None, None
        with torch.no_grad():
            # Always all T proposals: stopping early would depend on values, and so synchronise.
            for first in range(0, self.truncation, at_once):
                count = min(at_once, self.truncation - first)
                proposals = self.proposal.sample(torch.Size([count, *sample_shape]))
                log_acceptance = self.log_acceptance(proposals)
                accepted = torch.rand_like(log_acceptance).log() < log_acceptance
                # The first accepted one; if none is accepted, the last.
                order = torch.arange(count, 0, -1, device=accepted.device)
                rank = order.reshape(-1, *(1 for _ in shape)) * accepted
                rank[-1] = rank[-1].clamp(min=1)
                place = rank.argmax(0)[None, ..., None]
                chosen = proposals.gather(0, place.expand(1, *proposals.shape[1:]))[0]
                if drawn is None or found is None:
                    drawn, found = chosen, accepted.any(0)
                else:
                    drawn = torch.where(found.unsqueeze(-1), drawn, chosen)
                    found = found | accepted.any(0)
        assert drawn is not None
        return drawn

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "Resampled":
        """Return p(z), independently for each element of ``batch_shape``."""
        proposal = self.proposal.expand(torch.Size(batch_shape))
        return expanded(self, batch_shape, _instance, proposal=proposal)


@final
class ResampledPrior(AbstractDirectPrior):
    """N(0, I) with learned rejection: a proposal z is accepted with probability a(z).

    The sample is the first accepted of at most T proposals, or else the last:

        p(z) = N(z; 0, I) [a(z) / Z (1 - (1 - Z)^(T-1)) + (1 - Z)^(T-1)],    Z = E_N(0,I)[a(z)]

    with a the sigmoid of a perceptron, initially close to 1/2. Z is estimated as the mean of a
    over S samples of N(0, I): fresh ones on every call in training mode, fixed ones in evaluation
    mode. The error of log p(z) is the same for all z, to first order the standard error divided by
    Z, both from :meth:`acceptance`. With fresh samples log p(z) is too high by half its square on
    average.

    A density takes one pass of the perceptron, and S passes for Z. A sample takes T proposals and
    passes, and has no gradient: with objectives such as MMD, only the encoder learns from it.

    Generation space equals representation space. In the search for a mode, the curvature of N(0,
    I) is used for log p(z).

    Args:
        latent_dim: size L of z.
        hidden: widths of the perceptron's hidden layers, with tanh.
        truncation: number T of proposals, at least 2.
        draws: number S of samples in training mode.
        fixed_draws: number S of samples in evaluation mode.

    Raises:
        ValueError: if a size is below 1, or ``truncation`` or a number of samples below 2.

    References:
        Bauer, Mnih (2019), Resampled priors for variational autoencoders, sections 3 and 4: the
        density, with two layers of 100 tanh units and T = 100. The fixed samples are our choice.

    Example:
        >>> prior = ResampledPrior(2, hidden=(16,), truncation=10).eval()
        >>> prior().sample((5,)).shape
        torch.Size([5, 2])
        >>> 0.4 < prior.acceptance().share < 0.6
        tensor(True)
    """

    fixed: Tensor

    def __init__(
        self,
        latent_dim: int,
        *,
        hidden: Sequence[int] = (100, 100),
        truncation: int = 100,
        draws: int = 1024,
        fixed_draws: int = 16384,
    ) -> None:
        super().__init__(latent_dim)
        remedy = f"use StandardNormal({latent_dim})"
        self.truncation = _check_truncation(truncation, remedy=remedy)
        self.draws = check_repeated("draws", draws)
        layers = perceptron([latent_dim, *hidden, 1], activation="tanh")[:-1]
        last = cast(nn.Linear, layers[-1])
        with torch.no_grad():
            last.weight.mul_(_INITIAL)
            last.bias.zero_()
        self.network = nn.Sequential(*layers)
        fixed = torch.randn(
            check_repeated("fixed_draws", fixed_draws),
            latent_dim,
            generator=torch.Generator().manual_seed(0),
        )
        self.register_buffer("fixed", fixed, persistent=False)

    def forward(self) -> Resampled:
        """Return p(z), of batch shape () and event shape (L,)."""
        return Resampled(
            self._proposal(),
            log_acceptance=self.log_acceptance,
            share=self.acceptance().share,
            truncation=self.truncation,
        )

    def log_acceptance(self, z: Points) -> Values:
        """Return log a(z)."""
        logits = at_least_float32(self.network(z)).squeeze(-1)
        return nn.functional.logsigmoid(logits)

    def acceptance(self) -> Acceptance:
        """Return the estimate of Z that a density in this mode uses."""
        z = self._proposal().sample(torch.Size([self.draws])) if self.training else self.fixed
        accepted = self.log_acceptance(z).exp()
        return Acceptance(accepted.mean(), accepted.std() / math.sqrt(len(z)))

    def extra_repr(self) -> str:
        """Return the size of z and the truncation, for the ``repr``."""
        return f"{super().extra_repr()}, truncation={self.truncation}"

    def _proposal(self) -> TorchDistributionMixin:
        return dist.Normal(self.base_loc, self.base_scale).to_event(1)

    def linearize_density(self, z: Points) -> LinearizedDensity:
        """Return the gradient of log p(z), with I as the factor of its negative curvature."""
        gradient = batch_jacobian(self().log_ratio, z).movedim(0, -1) - z
        return LinearizedDensity(gradient, identities(z))


def _check_truncation(truncation: int, *, remedy: str) -> int:
    if check_positive_int("truncation", truncation) < 2:
        raise ValueError(f"truncation must be at least 2, got 1; {remedy}")
    return truncation
