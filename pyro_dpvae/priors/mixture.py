"""Mixture priors, whose components are clusters: learned normals, and the VampPrior."""

from abc import ABC, abstractmethod
from typing import Any, final

import pyro.distributions as dist
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pyro_dpvae._checks import check_positive, check_positive_int
from pyro_dpvae.distributions import DiagonalNormalMixture
from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.priors._base import AbstractDirectPrior, LinearizedDensity, Points

__all__ = ["AbstractMixturePrior", "MixturePrior", "VampPrior"]

# Scales from 5e-5 to 2e4, as for encoders, so that nothing overflows in float32.
_LOG_SCALE_RANGE = (-10.0, 10.0)


class AbstractMixturePrior(AbstractDirectPrior, ABC):
    """p(z) = sum_y p(y) N(z; mu_y, diag sigma_y^2), whose components are clusters.

    Generation space is representation space. Samples have gradients to all parameters, including
    the weights; see ``DiagonalNormalMixture``. The curvature of log p(z) is approximated by the
    mean of the components' precisions, weighted by responsibility.
    """

    def extra_repr(self) -> str:
        """Return the size of z and the number of components, for the ``repr``."""
        return f"{super().extra_repr()}, components={self.components}"

    @abstractmethod
    def forward(self) -> DiagonalNormalMixture:
        """Return p(z), of batch shape () and event shape (L,)."""

    def cluster_prior(self) -> Any:
        """Return p(y), a ``Categorical`` over the components."""
        return dist.Categorical(logits=self().logits)

    def conditional(self, y: Int[Tensor, "*clusters"]) -> dist.Independent:
        """Return N(mu_y, diag sigma_y^2), of the batch shape of y and event shape (L,)."""
        p = self()
        return dist.Normal(p.loc[y], p.scale[y]).to_event(1)

    def log_joint(self, z: Points) -> Float[Tensor, "*batch clusters"]:
        """Return log p(y) + log p(z | y) of every cluster y, in nats."""
        return _log_joint(self(), z)

    def linearize_density(self, z: Points) -> LinearizedDensity:
        """Return the gradient of log p(z) and a factor of its negative curvature, by point."""
        p = self()
        shares = _log_joint(p, z).softmax(-1).unsqueeze(-1)
        weighted = shares / p.scale.square()
        gradient = (weighted * (p.loc - z.unsqueeze(-2))).sum(-2)
        return LinearizedDensity(gradient, torch.diag_embed(weighted.sum(-2).sqrt()))


def _log_joint(p: DiagonalNormalMixture, z: Tensor) -> Tensor:
    return p.logits + dist.Normal(p.loc, p.scale).to_event(1).log_prob(z.unsqueeze(-2))


@final
class MixturePrior(AbstractMixturePrior):
    """p(z) = sum_y p(y) N(z; mu_y, diag sigma_y^2), with all parameters learned.

    Initial means are samples of N(0, spread^2 I). Each initial sigma is spread K^(-1/L), so that K
    balls of this radius have the volume of one ball of radius spread. Log sigma is clamped to
    [-10, 10].

    Args:
        latent_dim: size L of z.
        components: number K of components.
        uniform: keep p(y) uniform instead of learning it; clustering models often do, so that no
            cluster dies out.
        spread: standard deviation of the initial means.

    Raises:
        ValueError: if a size is below 1, or ``spread`` not positive.

    References:
        Jiang, Zheng, Tan, Tang, Zhou (2017), Variational deep embedding: the prior, with learned
        p(y). The initialisation is our choice.

    Example:
        >>> prior = MixturePrior(2, components=3)
        >>> prior.responsibilities(torch.zeros(5, 2)).shape
        torch.Size([5, 3])
        >>> prior.conditional(torch.tensor([0, 2])).batch_shape
        torch.Size([2])
    """

    logits: Tensor

    def __init__(
        self,
        latent_dim: int,
        *,
        components: int = 10,
        uniform: bool = False,
        spread: int | float = 1.0,
    ) -> None:
        super().__init__(latent_dim)
        self.components = check_positive_int("components", components)
        spread = check_positive("spread", spread)
        self.loc = nn.Parameter(spread * torch.randn(components, latent_dim))
        scale = torch.tensor(spread * components ** (-1 / latent_dim))
        self.log_scale = nn.Parameter(scale.log().repeat(components, latent_dim))
        if uniform or components == 1:
            self.register_buffer("logits", torch.zeros(components), persistent=False)
        else:
            self.logits = nn.Parameter(torch.zeros(components))

    def forward(self) -> DiagonalNormalMixture:
        """Return p(z), of batch shape () and event shape (L,)."""
        scale = self.log_scale.clamp(*_LOG_SCALE_RANGE).exp()
        return DiagonalNormalMixture(self.logits, self.loc, scale)


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
