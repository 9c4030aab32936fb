"""Mixtures of normals with reparameterised samples, and samples that carry soft values."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeVar, final

import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.nn.functional import pad

__all__ = [
    "DiagonalNormalMixture",
    "effective_components",
    "expanded",
    "map_draws",
    "soft_value",
]

# Numbers (coordinates x components x points) computed at once. On a CPU the first size fits into
# caches, which takes a tenth of the time. The second needs fewer operations, which a GPU starts,
# and a capture records, one by one.
_TILE, _LARGE_TILE = 2**17, 2**22

_PARAMETERS = {
    "logits": constraints.real_vector,
    "loc": constraints.real_vector,
    "scale": constraints.positive,
}

Own = TypeVar("Own", bound=TorchDistribution)


def expanded(
    p: Own,
    batch_shape: Sequence[int],
    instance: Any,
    *,
    names: Iterable[str] = (),
    **attributes: Any,
) -> Own:
    """Return a distribution with another batch shape, as ``expand`` must.

    Args:
        p: the distribution.
        batch_shape: the new batch shape.
        instance: the argument ``_instance`` of ``expand``.
        names: names of the tensors that begin with batch dimensions, which are expanded.
        attributes: new values of other attributes; those not named are kept.
    """
    new = p._get_checked_instance(type(p), instance)
    vars(new).update({**vars(p), **attributes, "_batch_shape": torch.Size(batch_shape)})
    for name in names:
        tensor = getattr(p, name)
        setattr(new, name, tensor.expand(*batch_shape, *tensor.shape[len(p.batch_shape) :]))
    return new


@final
class DiagonalNormalMixture(TorchDistribution):
    """q(z) = sum_k pi_k N(z; mu_k, diag sigma_k^2), with reparameterised draws.

    A draw z solves S(z) = u, where u is uniform on the cube and

        S_i(z) = F(z_i | z_<i) = sum_k w_ik Phi((z_i - mu_ki) / sigma_ki),
        w_ik   = P(k | z_<i), in proportion to  pi_k prod_{j<i} N(z_j; mu_kj, sigma_kj^2),

    so that dz/dtheta = -(dS/dz)^-1 dS/dtheta, with dS/dz lower triangular and in closed form.
    Draws themselves are taken component first; S is never inverted. Draws take part in first
    derivatives only. All is computed from logarithms of densities: no product of densities over
    coordinates is formed.

    The gradient of a mean to a weight is carried by draws between components, where mass would
    move: the farther these lie apart, the fewer such draws there are and the larger the
    gradients of these, and beyond some eight standard deviations none is ever drawn. Components
    that far apart learn their weights from log-densities alone.

    Args:
        logits: log pi up to a constant, of shape (*batch, K), K at least 1.
        loc: mu, of shape (*batch, K, L).
        scale: sigma, of shape (*batch, K, L).
        validate_args: as in torch's distributions.

    Attributes:
        logits: log pi, normalised.
        loc: mu.
        scale: sigma.

    Raises:
        ValueError: if the shapes do not fit together or, where arguments are validated, if a
            scale is not positive.

    References:
        Graves (2016), Stochastic backpropagation through mixture density distributions,
        equations 1 to 4. Figurnov, Mohamed, Mnih (2018), Implicit reparameterization gradients,
        section 4.

    Example:
        >>> loc = torch.tensor([[-1.0], [1.0]])
        >>> q = DiagonalNormalMixture(torch.zeros(2), loc, torch.ones(2, 1))
        >>> q.log_prob(torch.zeros(1))
        tensor(-1.4189)
    """

    # Empty: otherwise Pyro's AutoReparam would treat it as a location-scale family, and shift and
    # scale the samples of a mixture by its components' parameters.
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        logits: Tensor,
        loc: Tensor,
        scale: Tensor,
        *,
        validate_args: bool | None = None,
    ) -> None:
        if loc.dim() < 2 or loc.shape != scale.shape or logits.shape != loc.shape[:-1]:
            raise ValueError(
                "a mixture needs logits of shape (*batch, K), loc and scale of shape "
                f"(*batch, K, L), got {tuple(logits.shape)}, {tuple(loc.shape)} and "
                f"{tuple(scale.shape)}"
            )
        self.logits = logits.log_softmax(-1)
        self.loc, self.scale = loc, scale
        super().__init__(loc.shape[:-2], loc.shape[-1:], validate_args=validate_args)
        if self._validate_args:
            for name, constraint in _PARAMETERS.items():
                if not constraint.check(getattr(self, name)).all():
                    raise ValueError(
                        f"the {name} of a mixture must satisfy the constraint {constraint}, got "
                        f"{getattr(self, name)}"
                    )

    def __repr__(self) -> str:
        shapes = f"logits: {self.logits.shape}, loc: {self.loc.shape}, scale: {self.scale.shape}"
        return f"DiagonalNormalMixture({shapes})"

    @property
    def mean(self) -> Tensor:
        """The mean, sum_k pi_k mu_k, of shape (*batch, L)."""
        return self._average(self.loc)

    @property
    def variance(self) -> Tensor:
        """The variance of each coordinate, of shape (*batch, L)."""
        return self._average(self.scale.square() + self._centred.square())

    @property
    def covariance_matrix(self) -> Tensor:
        """The covariance, of shape (*batch, L, L)."""
        weighted = self.logits.exp().unsqueeze(-1) * self._centred
        within = torch.diag_embed(self._average(self.scale.square()))
        return within + weighted.mT @ self._centred

    @property
    def _centred(self) -> Tensor:
        return self.loc - self.mean.unsqueeze(-2)

    def _average(self, of_components: Tensor) -> Tensor:
        return (self.logits.exp().unsqueeze(-1) * of_components).sum(-2)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log q(z), in nats, for z of shape (..., L)."""
        if self._validate_args:
            self._validate_sample(value)
        parts = self.logits, self.loc, self.scale
        batch = len(self.batch_shape)
        # One mixture (perhaps expanded) without gradients is evaluated in tiles, as points x K x L
        # numbers could exceed any memory.
        one = all(not any(part.stride()[:batch]) for part in parts)
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        if torch.is_grad_enabled() or not one or not shape:
            return _log_mixture(value, *parts)
        logits, loc, scale = (part[(0,) * batch] for part in parts)
        fused = value.device.type != "cpu" or get_proxy_mode() is not None
        size = max(1, (_LARGE_TILE if fused else _TILE) // loc.numel())
        points = value.expand(*shape, value.shape[-1]).reshape(-1, value.shape[-1])
        dtype = torch.promote_types(points.dtype, self.loc.dtype)
        found = points.new_empty(len(points), dtype=dtype)
        # Into one tensor: small intermediate results would fragment the memory.
        for tile, place in zip(points.split(size), found.split(size), strict=True):
            place.copy_(_log_mixture(tile, logits, loc, scale))
        return found.reshape(shape)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples without gradients, of shape (*sample_shape, *batch_shape, L)."""
        with torch.no_grad():
            shape = torch.Size(sample_shape)
            logits = self.logits.expand(*shape, *self.logits.shape)
            # The first of K exponential clocks with rates pi: a choice without synchronisation.
            clocks = torch.empty_like(logits, memory_format=torch.contiguous_format)
            chosen = (logits - clocks.exponential_().log()).argmax(-1)[..., None, None]
            chosen = chosen.expand(*logits.shape[:-1], 1, *self.event_shape)
            loc, scale = (
                part.expand(*shape, *part.shape).gather(-2, chosen).squeeze(-2)
                for part in (self.loc, self.scale)
            )
            return loc + scale * torch.randn_like(loc)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples with gradients, of shape (*sample_shape, *batch_shape, L)."""
        z = self.sample(sample_shape)
        if not torch.is_grad_enabled():
            return z
        # Products in less than float32 would spoil the solution of the triangular system.
        with torch.autocast(z.device.type, enabled=False):
            return z + _displacement(z, self.logits, self.loc, self.scale)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "DiagonalNormalMixture":
        """Return q(z), independently for each element of ``batch_shape``."""
        return expanded(self, batch_shape, _instance, names=_PARAMETERS)


def effective_components(weights: Float[Tensor, "data components"]) -> float:
    """Return the effective number of components, exp(H(mean weights)), from 1 to K.

    Args:
        weights: of each component for each datum, which sum to one over the components.

    Example:
        >>> round(effective_components(torch.tensor([[1.0, 0.0], [0.0, 1.0]])), 3)
        2.0
    """
    mean = weights.double().mean(0)
    return float(torch.special.entr(mean).sum().exp())


def soft_value(draw: Tensor) -> Tensor:
    """Return the value at which to evaluate the density of a sample.

    It is the sample itself, except for discrete samples of Pyro's straight-through distributions,
    which carry the relaxed value that they were rounded from.
    """
    soft: Tensor = getattr(draw, "_unquantize", draw)
    return soft


def map_draws(function: Callable[..., Tensor], *draws: Tensor) -> Tensor:
    """Apply a function such as a reshape to samples and to their soft values.

    Indexing and reshaping copy a tensor without its attributes; without the soft value, the
    density of a straight-through sample would be lost.
    """
    result = function(*draws)
    softened = [soft_value(draw) for draw in draws]
    if any(soft is not draw for soft, draw in zip(softened, draws, strict=True)):
        result._unquantize = function(*softened)  # type: ignore[attr-defined]
    return result


def _log_mixture(z: Tensor, logits: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """Return log sum_k pi_k N(z; mu_k, diag sigma_k^2)."""
    log_densities = _log_normal(z.unsqueeze(-2), loc, scale)[1]
    return torch.logsumexp(logits + log_densities.sum(-1), -1)


def _log_normal(z: Tensor, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return u = (z - mu) / sigma and log N(z; mu, sigma^2), of each coordinate."""
    u = (z - loc) / scale
    return u, -0.5 * u.square() - scale.log() - 0.5 * math.log(2 * math.pi)


def _displacement(
    z: Float[Tensor, "*draws latent"], logits: Tensor, loc: Tensor, scale: Tensor
) -> Float[Tensor, "*draws latent"]:
    """Return zeros with the gradients of z, given without, to the parameters.

    Each row of dS dz = -dS/dtheta dtheta is divided by the conditional density
    p(z_i | z_<i) = dS_i/dz_i. What is left of a row's right-hand side is

        sum_k r_ik (dmu_ki + u_ki dsigma_ki) - sum_k dw_ik Phi(u_ki) / p(z_i | z_<i),

    with r_ik = P(k | z_<=i), which are 1 where K = 1: then dz = dmu + u dsigma, exactly.
    """
    u, log_density = _log_normal(z.unsqueeze(-2), loc, scale)
    before = pad(log_density.cumsum(-1)[..., :-1], (1, 0))
    log_weights = torch.log_softmax(logits.unsqueeze(-1) + before, -2)
    with torch.no_grad():
        weights = log_weights.exp()
        joint = log_weights + log_density
        log_conditional = joint.logsumexp(-2, keepdim=True)
        reached = (joint - log_conditional).exp()
        # Phi - 1 serves as well as Phi, since weights sum to one, and has digits in upper tails.
        below, above = torch.special.ndtr(u), torch.special.ndtr(-u)
        in_upper_half = (weights * below).sum(-2, keepdim=True) > 0.5
        cumulative = torch.where(in_upper_half, -above, below)
        # A density below this is nine standard deviations off; what is divided is smaller yet.
        density = log_conditional.exp().clamp(min=torch.finfo(z.dtype).tiny ** 0.5)
        excess = (cumulative - (weights * cumulative).sum(-2, keepdim=True)) / density
        along = u / scale  # -d log N(z_j; k) / dz_j
        jacobian = -((weights * excess).mT @ along).tril(-1)
    moved = (reached * (loc + u.detach() * scale) - log_weights.exp() * excess).sum(-2)
    solved = torch.linalg.solve_triangular(
        jacobian, (moved - moved.detach()).unsqueeze(-1), upper=False, unitriangular=True
    )
    return solved.squeeze(-1)
