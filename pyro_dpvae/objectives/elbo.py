"""The decomposed evidence lower bound: distortion, weighted rate, penalties."""

from collections.abc import Iterable
from typing import Any

import pyro.infer
import torch
from pyro.infer.enum import get_importance_trace
from pyro.infer.util import torch_item
from pyro.poutine import Trace
from pyro.util import warn_if_nan
from torch import Tensor

from pyro_dpvae.objectives._traces import DataPlate, distortion, latent_sites, rate
from pyro_dpvae.objectives.penalties import AbstractPenalty
from pyro_dpvae.objectives.rates import AbstractRate, Beta

__all__ = ["ELBO", "BetaVAE"]


class ELBO(pyro.infer.ELBO):
    """The loss of a regularized VAE, for ``pyro.infer.SVI``.

    With D = -E_q[log p(x | z)] and R = E_q[log q(z | x) - log p(z)] of a datum,

        loss = sum over the batch of  D + rate(R) + sum of penalties.

    The divergence R is in closed form where q and p allow it; otherwise the entropy of q is,
    where q allows it, and log p(z) is taken at the sample. The step returns the loss summed over
    the batch, as every Pyro objective does; ``terms`` holds the terms of the last evaluation per
    datum, in nats: ``loss``, ``distortion``, ``rate`` (without its weight) and each penalty.

    Args:
        rate: what R is charged; the default charges R itself.
        penalties: terms on the representations of the batch.
        num_particles: how many samples of z per datum are averaged.
        vectorize_particles: whether they are drawn at once rather than in a loop.
        max_plate_nesting: a bound on the depth of plates, guessed if vectorizing needs it.

    Raises:
        ValueError: on a step, if the model observes nothing inside the data plate, if a latent
            site is missing from the guide, or if one cannot be reparameterised.

    References:
        Kingma, Welling (2014), Auto-Encoding Variational Bayes, equations 3 and 7. Bhalodia,
        Lee, Elhabian (2020), dpVAEs, equation 5 for the rate under a decoupled prior.

    Example:
        >>> ELBO(rate=Beta(4.0)).terms
        {}
    """

    def __init__(
        self,
        *,
        rate: AbstractRate | None = None,
        penalties: Iterable[AbstractPenalty] = (),
        num_particles: int = 1,
        vectorize_particles: bool = False,
        max_plate_nesting: int | float = float("inf"),
    ) -> None:
        super().__init__(
            num_particles=num_particles,
            vectorize_particles=vectorize_particles,
            max_plate_nesting=max_plate_nesting,
        )
        self.rate = Beta() if rate is None else rate
        self.penalties = tuple(penalties)
        self.terms: dict[str, Tensor] = {}

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Return the loss summed over the batch, without gradients."""
        with torch.no_grad():
            return torch_item(self.differentiable_loss(model, guide, *args, **kwargs))

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Return the loss summed over the batch, and add its gradients to the parameters'."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward()
        return loss.detach()

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Return the loss summed over the batch, as a tensor with a graph."""
        particles = [
            self._particle(model_trace, guide_trace)
            for model_trace, guide_trace in self._get_traces(model, guide, args, kwargs)
        ]
        loss = torch.stack([loss for loss, _ in particles]).mean()
        self.terms = {
            name: torch.stack([terms[name] for _, terms in particles]).mean()
            for name in particles[0][1]
        }
        warn_if_nan(loss, "loss")
        return loss

    def _particle(
        self, model_trace: Trace, guide_trace: Trace
    ) -> tuple[Tensor, dict[str, Tensor]]:
        plate = DataPlate(model_trace)
        count = self.num_particles if self.vectorize_particles else 1
        distortions = distortion(model_trace, plate, particles=count)
        rates = rate(model_trace, guide_trace, plate, particles=count)
        terms = {"distortion": distortions.mean(), "rate": rates.mean()}
        loss = (distortions + self.rate(rates)).mean()
        if self.penalties:
            latents = latent_sites(model_trace, guide_trace)
            for penalty in self.penalties:
                terms[penalty.name] = penalty(latents)
                loss = loss + terms[penalty.name]
        logged = {"loss": loss, **terms}
        return plate.full_size * loss, {name: term.detach() for name, term in logged.items()}

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Trace, Trace]:
        return get_importance_trace("flat", self.max_plate_nesting, model, guide, args, kwargs)


class BetaVAE(ELBO):
    """The beta-VAE objective: distortion + beta * rate (Higgins et al., 2017, equation 4).

    Args:
        beta: the weight of the rate, 0 or more.
        options: further options of :class:`ELBO`.

    Example:
        >>> BetaVAE(4.0).rate.beta
        4.0
    """

    def __init__(self, beta: float = 4.0, **options: Any) -> None:
        super().__init__(rate=Beta(beta), **options)
