"""Likelihoods by one logit per pixel: Bernoulli and continuous Bernoulli."""

from collections.abc import Sequence
from typing import Self, final

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import softplus

from pyro_dpvae.likelihoods._base import AbstractLikelihood, check_finite, describe

__all__ = ["Bernoulli", "ContinuousBernoulli"]


@final
class Bernoulli(AbstractLikelihood):
    """p(x | l) = prod_i sigmoid(l_i)^x_i (1 - sigmoid(l_i))^(1 - x_i), for pixels 0 or 1.

    Args:
        shape: of a datum.

    Example:
        >>> Bernoulli((1, 2, 2))(torch.zeros(3, 1, 2, 2)).log_prob(torch.ones(3, 1, 2, 2))
        tensor([-2.7726, -2.7726, -2.7726])
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape, values=1)

    def forward(self, raw: Float[Tensor, "..."]) -> dist.Independent:
        """Return p(x | raw); raw holds logits."""
        return self._whole(dist.Bernoulli(logits=raw, validate_args=False), _check_binary)


@final
class ContinuousBernoulli(AbstractLikelihood):
    """p(x | l) = prod_i C(l_i) exp(l_i x_i - softplus(l_i)), for pixels in [0, 1].

    C(l) = l / tanh(l / 2), with C(0) = 2, makes it a density; without it, the cross-entropy of
    grey pixels belongs to no model.

    Args:
        shape: of a datum.

    References:
        Loaiza-Ganem, Cunningham (2019), The continuous Bernoulli, equations 5 to 8.

    Example:
        >>> ContinuousBernoulli((1,))(torch.zeros(1, 1)).log_prob(torch.tensor([[0.3]])).item()
        0.0
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape, values=1)

    def forward(self, raw: Float[Tensor, "..."]) -> dist.Independent:
        """Return p(x | raw); raw holds logits."""
        return self._whole(_ContinuousBernoulli(raw), _check_unit)


class _ContinuousBernoulli(dist.TorchDistribution):
    """The density of one pixel by its logit.

    ``torch.distributions.ContinuousBernoulli`` goes by probabilities, which in float32 end at a
    logit of 16; decoders go further, and its density then no longer integrates to 1.
    """

    arg_constraints = {"logits": constraints.real}  # noqa: RUF012, as torch declares it
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        super().__init__(logits.shape, validate_args=False)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> Self:
        new = self._get_checked_instance(_ContinuousBernoulli, _instance)
        new.logits = self.logits.expand(torch.Size(batch_shape))
        super(_ContinuousBernoulli, new).__init__(torch.Size(batch_shape), validate_args=False)
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        return self.logits * value - softplus(self.logits) + self._log_normalizer()

    @property
    def mean(self) -> Tensor:
        logits, near = self._away_from_zero()
        exact = 1 / (1 - torch.exp(-logits)) - 1 / logits
        return torch.where(near, 0.5 + self.logits / 12, exact)

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = torch.Size()) -> Tensor:
        logits, near = self._away_from_zero()
        u = torch.rand(torch.Size(sample_shape) + self.batch_shape).to(logits)
        # log(1 + u (e^l - 1)) / l, written by e^-|l| so that it cannot overflow
        size = logits.abs()
        v = torch.where(logits > 0, u, 1 - u)
        x = (size + torch.log(v + (1 - v) * torch.exp(-size))) / size
        x = torch.where(logits > 0, x, 1 - x)
        return torch.where(near, u, x).clamp(0, 1)

    def _log_normalizer(self) -> Tensor:
        logits, near = self._away_from_zero()
        exact = torch.log(logits / torch.tanh(logits / 2))
        series = 0.6931471805599453 + self.logits.square() / 12  # log 2 + l^2/12 + O(l^4)
        return torch.where(near, series, exact)

    def _away_from_zero(self) -> tuple[Tensor, Tensor]:
        # Both branches of torch.where get gradients, so the exact one must be finite throughout.
        near = self.logits.abs() < 1e-2
        return torch.where(near, torch.ones_like(self.logits), self.logits), near


_REMEDY = (
    "binarise the data (preprocessing 'binary-static' or 'binary-dynamic'), or use likelihood "
    "'continuous-bernoulli', 'gaussian', 'gaussian-learned' or 'logistic'"
)


def _check_binary(value: Tensor) -> None:
    check_finite("a Bernoulli likelihood", value)
    grey = (value != 0) & (value != 1)
    if grey.any():
        raise ValueError(
            f"a Bernoulli likelihood takes pixels 0 or 1, got {int(grey.sum())} of "
            f"{value.numel()} that are neither, {describe(value)}; {_REMEDY}"
        )


def _check_unit(value: Tensor) -> None:
    check_finite("a continuous Bernoulli likelihood", value)
    if (value < 0).any() or (value > 1).any():
        raise ValueError(
            f"a continuous Bernoulli likelihood takes pixels in [0, 1], got {describe(value)}; "
            "use preprocessing 'grey', or likelihood 'gaussian' or 'gaussian-learned'"
        )
