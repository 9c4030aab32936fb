"""Penalties whose densities an adversary learns: FactorVAE, and InfoVAE's adversarial form."""

import math
from abc import ABC
from collections.abc import Sequence
from typing import Any, ClassVar, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from pyro_dpvae.objectives.penalties.adversary import Adversary
from pyro_dpvae.objectives.penalties.base import AbstractPenalty
from pyro_dpvae.objectives.penalties.latents import Latents
from pyro_dpvae.objectives.schedules import Weight

__all__ = ["HIDDEN", "AdversarialDivergence", "AdversarialTotalCorrelation", "permute_coordinates"]

HIDDEN = (1000,) * 5


def permute_coordinates(
    z: Float[Tensor, "*particles batch latent"],
    noise: Float[Tensor, "*particles batch latent"],
) -> Float[Tensor, "*particles batch latent"]:
    """Return z with each coordinate permuted by itself over the batch.

    The result is a sample of prod_d q(z_d) if z is one of q(z).

    Args:
        z: of which coordinates are permuted.
        noise: draws without ties, whose order is the permutation.

    References:
        Kim, Mnih (2018), Disentangling by factorising, algorithm 1.
    """
    return z.gather(-2, noise.argsort(-2))


class _AbstractAdversarial(AbstractPenalty, ABC):
    """A penalty of one term, that an adversary of its own estimates."""

    term: ClassVar[str]

    def __init__(
        self,
        weight: Weight,
        *,
        latent_dim: int,
        hidden: Sequence[int] = HIDDEN,
        learning_rate: float = 1e-4,
    ) -> None:
        super().__init__(signed=False, **{self.term: weight})
        self.adversary = Adversary(latent_dim, hidden=hidden, learning_rate=learning_rate)

    def note_finite(self, finite: Bool[Tensor, ""]) -> None:
        """Let the adversary learn from steps of a finite loss alone."""
        self.adversary.note_finite(finite)

    def update(self) -> None:
        """Let the adversary take its step."""
        self.adversary.update()

    @property
    def settings(self) -> dict[str, Any]:
        """The weight and the adversary's sizes and learning rate."""
        return {**super().settings, **self.adversary.settings}


@final
class AdversarialTotalCorrelation(_AbstractAdversarial):
    """The total correlation of q(z) as an adversary estimates it: FactorVAE.

        TC = KL(q(z) || prod_d q(z_d)) ~ mean of D(z) over the batch

    In each training step D first gives the estimate, then learns to tell z of the batch's first
    half from z of its second half with each coordinate permuted over the data: the two samples
    are independent. A batch of twice the size thus is the two batches of the paper. The term is
    ``adversarial_total_correlation``.

    Args:
        weight: gamma.
        latent_dim: the size L of z.
        hidden: the widths of D's layers.
        learning_rate: of D's optimizer, Adam with betas (0.5, 0.9).

    Raises:
        ValueError: if a size is below 1 or the learning rate not positive; on a step, if the
            batch has fewer than four data, or z is of another size or on another device.

    References:
        Kim, Mnih (2018), Disentangling by factorising, equations 2 and 3, algorithm 2, appendix A
        (learning rate, betas). Bhalodia, Lee, Elhabian (2020), dpVAEs, appendix B (layers).

    Example:
        >>> penalty = AdversarialTotalCorrelation(10.0, latent_dim=4)
        >>> sum(p.numel() for p in penalty.adversary.parameters())
        4010001
    """

    smallest_batch: ClassVar[int] = 4
    term = "adversarial_total_correlation"

    def forward(self, latents: Latents) -> dict[str, Float[Tensor, ""]]:
        """Return the term."""
        estimate = self.adversary.estimate(torch.mean, latents.value)
        return {self.term: estimate}

    def learn(self, particles: Sequence[Latents]) -> None:
        """Show the adversary the halves of the batch."""
        half = particles[0].size // 2
        joint = [latents.value[..., :half, :] for latents in particles]
        others = [latents.value[..., half:, :] for latents in particles]
        permuted = [
            permute_coordinates(z, latents.alike(torch.rand_like(z)))
            for latents, z in zip(particles, others, strict=True)
        ]
        self.adversary.learn(torch.cat(joint), torch.cat(permuted))


@final
class AdversarialDivergence(_AbstractAdversarial):
    """The Jensen-Shannon divergence of q(z) from p(z) as an adversary estimates it.

        JS = log 2 + E_q[log sigmoid(D(z))] / 2 + E_p[log sigmoid(-D(z))] / 2

    a lower bound of the divergence, tight for the best D. In each training step D first gives
    the estimate, then learns to tell z of the batch from as many of the prior. Gradients reach the
    encoder, and through the prior's draws the prior. The term is ``jensen_shannon``.

    Args:
        weight: of the term.
        latent_dim: the size L of z.
        hidden: the widths of D's layers.
        learning_rate: of D's optimizer, Adam with betas (0.5, 0.9).

    Raises:
        ValueError: if a size is below 1 or the learning rate not positive; on a step, if z is of
            another size or on another device.

    References:
        Zhao, Song, Ermon (2019), InfoVAE, section 3.2. Makhzani et al. (2015), Adversarial
        autoencoders.

    Example:
        >>> AdversarialDivergence(10.0, latent_dim=4).settings["jensen_shannon"]
        10.0
    """

    term = "jensen_shannon"

    def forward(self, latents: Latents) -> dict[str, Float[Tensor, ""]]:
        """Return the term."""
        q, p = latents.value, latents.prior_sample()
        return {self.term: self.adversary.estimate(_jensen_shannon, q, p)}

    def learn(self, particles: Sequence[Latents]) -> None:
        """Show the adversary the batch and as many draws of the prior."""
        with torch.no_grad():
            p = torch.cat([latents.prior_sample() for latents in particles])
        self.adversary.learn(torch.cat([latents.value for latents in particles]), p)


def _jensen_shannon(of_q: Tensor, of_p: Tensor) -> Tensor:
    return math.log(2) + (logsigmoid(of_q).mean() + logsigmoid(-of_p).mean()) / 2
