"""Penalties estimated by an adversary: FactorVAE, and InfoVAE's adversarial form."""

import math
from abc import ABC
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from pyro_dpvae._checks import check_positive, check_positive_int
from pyro_dpvae.nn.mlp import perceptron
from pyro_dpvae.objectives.penalties.latents import AbstractPenalty, Latents
from pyro_dpvae.objectives.schedules import Weight

__all__ = [
    "HIDDEN",
    "AdversarialDivergence",
    "AdversarialTotalCorrelation",
    "Adversary",
    "permute_coordinates",
]

_leaky_relu = partial(nn.LeakyReLU, 0.2)


@final
class Adversary(nn.Module):
    """A network D(z), with its own optimizer, that learns log r(z) - log s(z).

    D is trained by logistic regression to tell samples of r from samples of s. :meth:`learn` does
    not change gradients of the samples, nor :meth:`estimate` those of D.

    Args:
        latent_dim: the size L of z.
        hidden: the widths of the hidden layers, which have leaky ReLUs with factor 0.2.
        learning_rate: learning rate of Adam, with betas (0.5, 0.9).

    Raises:
        ValueError: if a size or the learning rate is not positive.

    References:
        Kim, Mnih (2018), Disentangling by factorising, section 3 and appendix A; D is the
        difference of their two logits.

    Example:
        >>> adversary = Adversary(3, hidden=(8,), learning_rate=1e-4)
        >>> adversary.logits(torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    nonfinite: Tensor

    def __init__(self, latent_dim: int, *, hidden: Sequence[int], learning_rate: float) -> None:
        super().__init__()
        self.latent_dim = check_positive_int("latent_dim", latent_dim)
        self.hidden = list(hidden)
        self.learning_rate = check_positive("learning_rate", learning_rate)
        sizes = [latent_dim, *self.hidden, 1]
        self.network = nn.Sequential(*perceptron(sizes, activation=_leaky_relu)[:-1])
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=learning_rate, betas=(0.5, 0.9), fused=True
        )
        # 1 if the loss was not finite; a tensor, so that captured steps can fill it.
        self.register_buffer("nonfinite", torch.zeros((), dtype=torch.float32), persistent=False)

    def logits(self, z: Tensor) -> Tensor:
        """Return D(z), of shape (*batch,), for z of shape (*batch, L).

        Raises:
            ValueError: if z has another size or device.
        """
        weight = next(self.network.parameters())
        if z.shape[-1] != self.latent_dim:
            raise ValueError(
                f"latent_dim must be the size of z, {z.shape[-1]}, got {self.latent_dim}"
            )
        if z.device != weight.device:
            raise ValueError(
                f"the adversary must be on the device of z, {z.device}, got {weight.device}; "
                f"call objective.to({str(z.device)!r})"
            )
        return self.network(z.to(weight.dtype)).squeeze(-1)

    def estimate(self, of_logits: Any, *samples: Tensor) -> Tensor:
        """Return a function of D(z), with first gradients to the samples and none to D.

        The gradient is computed here, so that D may change in place before the backward pass.

        Args:
            of_logits: maps D(z) of each sample to a scalar tensor.
            samples: tensors of shape (*batch, L).
        """
        points = [z.detach().requires_grad_(torch.is_grad_enabled()) for z in samples]
        value = of_logits(*map(self.logits, points))
        if not torch.is_grad_enabled():
            return value
        gradients = torch.autograd.grad(value, points)
        linear = [(g * (z - z.detach())).sum() for g, z in zip(gradients, samples, strict=True)]
        return value.detach() + torch.stack(linear).sum()

    def learn(self, r: Tensor, s: Tensor) -> None:
        """Store the gradient of half the cross-entropy of r and s, for :meth:`update`."""
        # All ranks have the same samples and gradients, so that no all-reduce is needed.
        with torch.enable_grad():
            of_r, of_s = self.logits(r.detach()), self.logits(s.detach())
            loss = (softplus(-of_r).mean() + softplus(of_s).mean()) / 2
            gradients = torch.autograd.grad(loss, list(self.network.parameters()))
        for parameter, gradient in zip(self.network.parameters(), gradients, strict=True):
            parameter.grad = gradient

    def note_finite(self, finite: Tensor) -> None:
        """Store whether the loss of the step is finite, for :meth:`update`."""
        self.nonfinite.copy_(~finite)

    def update(self) -> None:
        """Take an optimizer step; without effect if gradient or loss are not finite."""
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        if not gradients:
            return
        # Fused kernels skip the step if it is 1, as with GradScaler, without a synchronisation.
        found = self.nonfinite.clone()
        torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, torch.ones_like(found))
        self.optimizer.found_inf = found  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _save_to_state_dict(self, state: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(state, prefix, keep_vars)
        for index, entries in self.optimizer.state_dict()["state"].items():
            for name, tensor in entries.items():
                state[f"{prefix}optimizer.{index}.{name}"] = tensor

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *others: Any) -> None:
        errors: list[str] = others[-1]
        entries: dict[int, dict[str, Tensor]] = {}
        start = f"{prefix}optimizer."
        for key in [key for key in state if key.startswith(start)]:
            index, name = key.removeprefix(start).split(".")
            entries.setdefault(int(index), {})[name] = state.pop(key).clone()
        # Before the first step the optimizer has no state.
        for number, parameter in enumerate(self.network.parameters()) if entries else ():
            own = entries.get(number, {})
            found = {name: tuple(tensor.shape) for name, tensor in own.items()}
            shape = tuple(parameter.shape)
            if found != {"step": (), "exp_avg": shape, "exp_avg_sq": shape}:
                errors.append(
                    f"the optimizer state of parameter {number} under {prefix!r} must have step, "
                    f"and exp_avg and exp_avg_sq of shape {shape}; got {found}"
                )
        if not errors:
            self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": entries})
        super()._load_from_state_dict(state, prefix, *others)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Adversary":
        # Adam's moments follow the parameters; its step counter stays float32.
        super()._apply(fn, recurse)
        self.nonfinite = self.nonfinite.float()
        for parameter, entries in self.optimizer.state.items():
            for name, tensor in entries.items():
                counter = name == "step"
                entries[name] = tensor.to(parameter.device) if counter else fn(tensor)
        return self


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

    options = ("hidden", "learning_rate")
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
        self.hidden, self.learning_rate = self.adversary.hidden, self.adversary.learning_rate

    def note_finite(self, finite: Bool[Tensor, ""]) -> None:
        """Let the adversary learn only from steps with a finite loss."""
        self.adversary.note_finite(finite)

    def update(self) -> None:
        """Take the adversary's optimizer step."""
        self.adversary.update()


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
