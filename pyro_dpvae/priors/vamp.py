"""The VampPrior: a mixture of the posteriors of learned pseudo-inputs."""

from typing import final

import torch
from torch import Tensor, nn

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.distributions import DiagonalNormalMixture
from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.priors.mixture import AbstractMixturePrior

__all__ = ["VampPrior"]

# Pseudo-inputs start at least this fraction of the range inside it, for nonzero gradients.
_MARGIN = 0.01


@final
class VampPrior(AbstractMixturePrior):
    """p(z) = 1/K sum_k q(z | u_k), with the guide's own encoder and learned pseudo-inputs u_k.

    The mixture is the aggregate posterior of a data set of K items. Every call passes all
    pseudo-inputs through the encoder once, which costs as much as a batch of K items. The encoder
    then learns from both sides of the rate. Components are clusters, as in any mixture prior.

    Pseudo-inputs stay in the data's range: with v_k free,

        u_k = low + (high - low) / (1 + exp(-v_k))

    and initial values closer than 1 % of the range to its ends are moved inside by that much. This
    map is our choice; the paper clips them to the range.

    The encoder runs in its current mode: batch norm in training mode normalises the pseudo-inputs
    as a separate batch, and includes them in its running statistics. Prefer encoders without it.

    With couplings, ``CouplingPrior(base=VampPrior(...))``, the encoder's posteriors are used as
    distributions of z0: a valid prior, but no longer of the aggregate posterior's form.

    Prior and guide share one encoder, just as model and ``guides.LaplaceGuide`` share one decoder.
    To train a copy, copy both at once: ``copy.deepcopy((model, guide))``.

    Args:
        encoder: x -> q(z | x), the guide's encoder.
        pseudo_inputs: initial values of u, of shape (K, *data): preprocessed items of the data
            set.
        bounds: low and high end of the data's range; None for unbounded data and unbounded u.

    Attributes:
        components: the number K.

    Raises:
        ValueError: if there is no pseudo-input, they have another shape than the encoder's data,
            ``bounds`` is empty, or a pseudo-input lies outside it.

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
            raise ValueError(f"bounds must be (low, high) with low < high, got {bounds}")
        shape = encoder.network.in_shape
        if pseudo_inputs.shape[1:] != shape:
            raise ValueError(
                "pseudo-inputs must have the encoder's input shape (K, "
                f"{', '.join(map(str, shape))}), got {tuple(pseudo_inputs.shape)}; pass "
                "preprocessed data"
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
        """Set the pseudo-inputs to K items of data, of shape (N, *data), chosen at random.

        Use it for priors that are built before the data are loaded.

        Raises:
            ValueError: if there are fewer than K items, or they have another shape or lie outside
                the bounds.
        """
        if len(data) < self.components or data.shape[1:] != self.raw.shape[1:]:
            raise ValueError(
                f"data must have at least {self.components} items of shape "
                f"{tuple(self.raw.shape[1:])}, got {len(data)} of {tuple(data.shape[1:])}; build "
                "the prior with fewer pseudo-inputs, or for this shape"
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
                f"{float(u.min()):.4g} to {float(u.max()):.4g}; set bounds to the data's range, "
                "or None"
            )
        return torch.logit((u - low) / (high - low), eps=_MARGIN)
