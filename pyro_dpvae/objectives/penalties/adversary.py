"""An adversary: a classifier of two samples that learns within the objective's step."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_dpvae._checks import check_positive, check_positive_int
from pyro_dpvae.nn.mlp import perceptron

__all__ = ["Adversary"]

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
        self.register_state_dict_post_hook(_save_optimizer)
        self.register_load_state_dict_pre_hook(_load_optimizer)

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

    @property
    def settings(self) -> dict[str, Any]:
        """The widths of the hidden layers and the learning rate."""
        return {"hidden": self.hidden, "learning_rate": self.learning_rate}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Adversary":
        # Adam's moments follow the parameters; its step counter stays float32.
        super()._apply(fn, recurse)
        self.nonfinite = self.nonfinite.float()
        for parameter, entries in self.optimizer.state.items():
            for name, tensor in entries.items():
                counter = name == "step"
                entries[name] = tensor.to(parameter.device) if counter else fn(tensor)
        return self


_PREFIX = "optimizer."


def _save_optimizer(
    adversary: nn.Module, state: dict[str, Any], prefix: str, _metadata: dict[str, Any]
) -> None:
    assert isinstance(adversary, Adversary)
    for index, entries in adversary.optimizer.state_dict()["state"].items():
        for name, tensor in entries.items():
            state[f"{prefix}{_PREFIX}{index}.{name}"] = tensor


def _load_optimizer(
    adversary: nn.Module,
    state: dict[str, Any],
    prefix: str,
    _metadata: dict[str, Any],
    _strict: bool,
    _missing: list[str],
    _unexpected: list[str],
    errors: list[str],
) -> None:
    assert isinstance(adversary, Adversary)
    entries: dict[int, dict[str, Tensor]] = {}
    start = prefix + _PREFIX
    for key in [key for key in state if key.startswith(start)]:
        index, name = key.removeprefix(start).split(".")
        entries.setdefault(int(index), {})[name] = state.pop(key).clone()
    # Before the first step the optimizer has no state.
    for number, parameter in enumerate(adversary.network.parameters()):
        if not entries:
            break
        own = entries.get(number, {})
        found = {name: tuple(tensor.shape) for name, tensor in own.items()}
        shape = tuple(parameter.shape)
        if found != {"step": (), "exp_avg": shape, "exp_avg_sq": shape}:
            errors.append(
                f"the optimizer state of parameter {number} under {prefix!r} must have step, "
                f"and exp_avg and exp_avg_sq of shape {shape}; got {found}"
            )
    if not errors:
        whole = adversary.optimizer.state_dict()
        adversary.optimizer.load_state_dict({**whole, "state": entries})
