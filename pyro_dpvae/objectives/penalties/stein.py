"""The kernelized Stein discrepancy between aggregate posterior and prior."""

from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_dpvae.distributions import soft_value
from pyro_dpvae.objectives.penalties.latents import AbstractPenalty, Latents
from pyro_dpvae.objectives.penalties.mmd import Kernel, squared_distances
from pyro_dpvae.objectives.schedules import Weight
from pyro_dpvae.priors import AbstractPrior, Joined
from pyro_dpvae.priors.flow import FlowDistribution

__all__ = ["SteinDiscrepancy", "stein_squared"]


def stein_squared(
    z: Float[Tensor, "*batch n latent"], score: Float[Tensor, "*batch n latent"], scale: float
) -> Float[Tensor, "*batch"]:
    """Return the unbiased estimate of the squared Stein discrepancy with a Gaussian kernel.

    With the score s(z) = grad log p(z) and k(z, z') = exp(-|z - z'|^2 / scale), it is the mean
    over the pairs z != z' of

        s(z) . s(z') k + s(z) . grad_z' k + s(z') . grad_z k + trace(grad_z grad_z' k).

    References:
        Liu, Lee, Jordan (2016), A kernelized Stein discrepancy, equations 8 and 14.
    """
    size, latent_dim = z.shape[-2:]
    squared = squared_distances(z, z)
    kernel = torch.exp(-squared / scale)
    # (s(z) - s(z')) . (z - z') without a tensor of shape (n, n, latent)
    along = (score * z).sum(-1)
    crossed = score @ z.mT
    products = along.unsqueeze(-1) + along.unsqueeze(-2) - crossed - crossed.mT
    trace = 2 * latent_dim / scale - 4 * squared / scale**2
    pairs = kernel * (score @ score.mT + 2 / scale * products + trace)
    total = pairs.sum((-2, -1)) - pairs.diagonal(dim1=-2, dim2=-1).sum(-1)
    return total / (size * (size - 1))


@final
class SteinDiscrepancy(AbstractPenalty):
    """The squared kernelized Stein discrepancy between q(z) and p(z), estimated from a batch.

    The term ``stein`` uses z of the batch and the score of p, but no samples of the prior. It is
    zero if q(z) = p(z), and is the rate at which Stein variational gradient descent, which InfoVAE
    names, would lower KL(q(z) || p(z)). Gradients reach the encoder and, through the score, the
    prior. They are unbiased only for a continuous score, so not for couplings or zuko's flows with
    ReLUs.

    Args:
        weight: the weight of the term.
        bandwidth: bandwidth of the Gaussian kernel; None uses sqrt(L).

    Raises:
        ValueError: if the bandwidth is not positive; on a step, if the batch has one datum, in
            inference mode, or for a flow whose score is not continuous.

    References:
        Zhao, Song, Ermon (2019), InfoVAE, section 3.2. Liu, Wang (2016), Stein variational
        gradient descent, theorem 3.1 and lemma 3.2.

    Example:
        >>> SteinDiscrepancy(10.0).settings
        {'stein': 10.0, 'bandwidth': None}
    """

    options = ("bandwidth",)
    smallest_batch: ClassVar[int] = 2

    def __init__(self, weight: Weight, *, bandwidth: float | None = None) -> None:
        super().__init__(stein=weight)
        self.bandwidth, self._kernel = bandwidth, Kernel("rbf", bandwidth=bandwidth)

    def forward(self, latents: Latents) -> dict[str, Float[Tensor, ""]]:
        """Return the term."""
        if torch.is_inference_mode_enabled():
            raise ValueError(
                "the Stein discrepancy computes gradients, got torch.inference_mode(), which "
                "forbids them; evaluate under torch.no_grad()"
            )
        learning = torch.is_grad_enabled()
        z, scores = latents.value, []
        with torch.enable_grad():
            for site in latents.sites:
                _check_score(site.prior)
                # A copy, so that the score ignores sites that depend on this value.
                value = soft_value(site.value)
                value = value.clone() if learning else value.detach()
                if not value.requires_grad:
                    value = value.detach().requires_grad_()
                log_prior = site.prior.log_prob(value).sum()
                score = torch.zeros_like(value)
                if log_prior.requires_grad:
                    (score,) = torch.autograd.grad(
                        log_prior,
                        value,
                        create_graph=learning,
                        allow_unused=True,
                        materialize_grads=True,
                    )
                scores.append(score.reshape(*z.shape[:-1], -1))
        discrepancy = stein_squared(z, torch.cat(scores, -1), self._kernel.scale(z.shape[-1]))
        return {"stein": discrepancy.mean()}


def _check_score(prior: Any) -> None:
    if isinstance(prior, Joined):
        for part in prior.parts:
            _check_score(part)
        return
    flow = prior.transforms[0].flow if isinstance(prior, FlowDistribution) else None
    if isinstance(flow, AbstractPrior) and not flow.has_smooth_score:
        raise ValueError(
            "the prior's score must be continuous for the Stein discrepancy, whose gradient is "
            f"biased otherwise; got {type(flow).__name__} with activations that are not smooth; "
            "use smooth ones, such as CouplingPrior(activation='silu') or "
            "zuko.flows.MAF(activation=torch.nn.SiLU)"
        )
