"""The VampPrior: a mixture of the posteriors of learned pseudo-inputs."""

from typing import final

import torch
from torch import Tensor, nn

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.distributions import DiagonalNormalMixture
from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.priors.mixture import AbstractMixturePrior

__all__ = ["VampPrior"]

# By how much of the range pseudo-inputs start within it, so that their gradient does not vanish.
_MARGIN = 0.01


@final
class VampPrior(AbstractMixturePrior):
    """p(z) = 1/K sum_k q(z | u_k), with the guide's own encoder and learned pseudo-inputs u_k.

    The mixture is what the aggregate posterior would be of a data set of K data. Every call runs
    all pseudo-inputs through the encoder once, which costs what a batch of K data costs; its
    parameters then learn from both sides of the rate. Components are clusters like those of any
    mixture prior.

    Pseudo-inputs stay in the data's range: with v_k free,

        u_k = low + (high - low) / (1 + exp(-v_k))

    and starting values closer than 1 % of the range to its ends are moved in by that much. This
    map is our choice; the paper cuts them to the range.

    The encoder runs in the mode that it is in: batch norm in training mode normalises the
    pseudo-inputs as a batch of their own, and counts them in its running statistics. Prefer
    encoders without it.

    Under couplings, ``CouplingPrior(base=VampPrior(...))``, the encoder's posteriors are read as
    distributions of z0: a valid prior, but no longer of the aggregate posterior's form.

    Prior and guide share one encoder, as model and ``guides.LaplaceGuide`` share one decoder. A
    copy of the two that is to train has to be made of both at once:
    ``copy.deepcopy((model, guide))``.

    Args:
        encoder: x -> q(z | x), that of the guide.
        pseudo_inputs: where u starts, of shape (K, *data): some of the data, as the encoder sees
            them.
        bounds: low and high of the data's range; None for data without one, where u is free.

    Attributes:
        components: the number K.

    Raises:
        ValueError: if there is no pseudo-input, they have another shape than the encoder's
            data, ``bounds`` is empty, or a pseudo-input lies outside it.

    References:
        Tomczak, Welling (2018), VAE with a VampPrior, equation 9.

    Example:
        >>> from pyro_dpvae.nn import ARCHITECTURES
        >>> encoder = GaussianEncoder(ARCHITECTURES["mlp"].encoder((1, 8, 8)), 2)
        >>> prior = VampPrior(encoder, torch.rand(50, 1, 8, 8))
        >>> prior.latent_dim, prior().sample((5,)).shape
        (2, torch.Size([5, 2]))
    """

    logits: Tensor

    def __init__(
        self,
        encoder: GaussianEncoder,
        pseudo_inputs: Tensor,
        *,
        bounds: tuple[int | float, int | float] | None = (0.0, 1.0),
    ) -> None:
        super().__init__(encoder.latent_dim)
        if bounds is not None and not bounds[0] < bounds[1]:
            raise ValueError(f"bounds must be low and a high above it, got {bounds}")
        shape = encoder.network.in_shape
        if pseudo_inputs.shape[1:] != shape:
            raise ValueError(
                f"pseudo-inputs must have the shape (K, {', '.join(map(str, shape))}) of what the "
                f"encoder takes, got {tuple(pseudo_inputs.shape)}; give data as the encoder sees "
                "them"
            )
        self.encoder = encoder
        self.bounds = bounds
        self.components = check_positive_int("the number of pseudo-inputs", len(pseudo_inputs))
        self.raw = nn.Parameter(self._raw_of(pseudo_inputs))
        logits = torch.zeros(self.components, dtype=self.raw.dtype)
        self.register_buffer("logits", logits, persistent=False)

    @property
    def pseudo_inputs(self) -> Tensor:
        """The pseudo-inputs u, of shape (K, *data)."""
        if self.bounds is None:
            return self.raw
        low, high = self.bounds
        return low + (high - low) * self.raw.sigmoid()

    @torch.no_grad()
    def start_at(self, data: Tensor) -> None:
        """Move the pseudo-inputs to K of the data, of shape (N, *data), drawn without replacement.

        For priors that are built before there are data.

        Raises:
            ValueError: if the data are fewer than K, of another shape, or outside the bounds.
        """
        if len(data) < self.components or data.shape[1:] != self.raw.shape[1:]:
            raise ValueError(
                f"data must be at least {self.components} of shape {tuple(self.raw.shape[1:])}, "
                f"got {len(data)} of {tuple(data.shape[1:])}; build the prior with fewer "
                "pseudo-inputs, or of their shape"
            )
        chosen = data[torch.randperm(len(data), device=data.device)[: self.components]]
        self.raw.copy_(self._raw_of(chosen))

    def forward(self) -> DiagonalNormalMixture:
        """Return p(z), of batch shape () and event shape (L,)."""
        q = self.encoder(self.pseudo_inputs)
        return DiagonalNormalMixture(self.logits, q.mean, q.stddev)

    def _raw_of(self, pseudo_inputs: Tensor) -> Tensor:
        learned = (parameter.dtype for parameter in self.encoder.parameters())
        u = pseudo_inputs.detach().clone().to(next(learned, torch.get_default_dtype()))
        if self.bounds is None:
            return u
        low, high = self.bounds
        if not bool(((u >= low) & (u <= high)).all()):
            raise ValueError(
                f"pseudo-inputs must lie in the bounds {self.bounds}, got values from "
                f"{float(u.min()):.4g} to {float(u.max()):.4g}; give bounds of the data, or None"
            )
        return torch.logit((u - low) / (high - low), eps=_MARGIN)
