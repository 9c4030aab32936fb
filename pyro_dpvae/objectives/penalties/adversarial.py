"""Penalties estimated by an adversary: FactorVAE, and InfoVAE's adversarial form."""

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
    """Return z with each coordinate permuted over the batch: a sample of prod_d q(z_d).

    Args:
        z: samples of q(z).
        noise: random numbers without ties, whose order is the permutation.

    References:
        Kim, Mnih (2018), Disentangling by factorising, algorithm 1.
    """
    return z.gather(-2, noise.argsort(-2))


class _AbstractAdversarial(AbstractPenalty, ABC):
    """A penalty with one term, which an adversary estimates."""

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
        """Let the adversary learn only from steps with a finite loss."""
        self.adversary.note_finite(finite)

    def update(self) -> None:
        """Take the adversary's optimizer step."""
        self.adversary.update()

    @property
    def settings(self) -> dict[str, Any]:
        """The weight, and the adversary's widths and learning rate."""
        return {**super().settings, **self.adversary.settings}


@final
class AdversarialTotalCorrelation(_AbstractAdversarial):
    """The total correlation of q(z), estimated by an adversary D: FactorVAE.

        TC = KL(q(z) || prod_d q(z_d)) ~ mean of D(z) over the batch

    The term is ``adversarial_total_correlation``. After it is computed, D learns in each training
    step to tell z of the first half of the batch from z of the second half with permuted
    coordinates. The two halves correspond to the two batches of the paper.

    Args:
        weight: gamma.
        latent_dim: the size L of z.
        hidden: the widths of D's layers.
        learning_rate: learning rate of D's Adam optimizer, with betas (0.5, 0.9).

    Raises:
        ValueError: if a size or the learning rate is not positive; on a step, if the batch has
            fewer than four data, or z has another size or device.

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
        return {self.term: self.adversary.estimate(torch.mean, latents.value)}

    def learn(self, particles: Sequence[Latents]) -> None:
        """Train the adversary on the halves of the batch."""
        half = particles[0].size // 2
        joint, permuted = [], []
        for latents in particles:
            z = latents.value[..., half:, :]
            joint.append(latents.value[..., :half, :])
            permuted.append(permute_coordinates(z, latents.alike(torch.rand_like(z))))
        self.adversary.learn(torch.cat(joint), torch.cat(permuted))


@final
class AdversarialDivergence(_AbstractAdversarial):
    """The Jensen-Shannon divergence of q(z) from p(z), estimated by an adversary D.

        JS = log 2 + E_q[log sigmoid(D(z))] / 2 + E_p[log sigmoid(-D(z))] / 2

    This term, ``jensen_shannon``, is a lower bound of the divergence, and tight for the best D.
    After it is computed, D learns in each training step to tell z of the batch from as many
    samples of the prior. Gradients reach the encoder and, through these samples, the prior.

    Args:
        weight: the weight of the term.
        latent_dim: the size L of z.
        hidden: the widths of D's layers.
        learning_rate: learning rate of D's Adam optimizer, with betas (0.5, 0.9).

    Raises:
        ValueError: if a size or the learning rate is not positive; on a step, if z has another
            size or device.

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

        def jensen_shannon(of_q: Tensor, of_p: Tensor) -> Tensor:
            return math.log(2) + (logsigmoid(of_q).mean() + logsigmoid(-of_p).mean()) / 2

        q, p = latents.value, latents.prior_sample()
        return {self.term: self.adversary.estimate(jensen_shannon, q, p)}

    def learn(self, particles: Sequence[Latents]) -> None:
        """Train the adversary on the batch and as many samples of the prior."""
        with torch.no_grad():
            p = torch.cat([latents.prior_sample() for latents in particles])
        self.adversary.learn(torch.cat([latents.value for latents in particles]), p)
