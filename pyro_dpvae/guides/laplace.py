"""The Laplace guide: q(z | x) is a full-covariance Gaussian at the posterior's mode."""

from typing import final

import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.decoders import AbstractDecoder, Decoder
from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.guides._base import AbstractGuide, check_latent_dims
from pyro_dpvae.nn.linearization import Linearizer
from pyro_dpvae.nn.some_rows import at_some_rows
from pyro_dpvae.priors import AbstractPrior

__all__ = ["LaplaceGuide"]

# Fractions of a step, tried where log p(x, z) falls over the whole step.
_SHORTER = tuple(4.0**-power for power in range(1, 6))


@final
class LaplaceGuide(AbstractGuide):
    """q(z | x) = N(z; mu_T, Lambda_T^-1): T damped Newton steps from the encoder's mean mu_0.

    Let W be the Jacobian of the decoder's raw values, R minus the second derivative of log p(x |
    raw), G the Jacobian of the prior's map to generation space, and P0 minus the second derivative
    of log p0 there, all at mu_t. Then

        Lambda_t = W' R W + G' P0 G
        mu_{t+1} = mu_t + a_t Lambda_t^-1 grad_z log p(x, z)
        a_t = (1 - damping) / (t + 1)^decay

    In the paper the prior is standard, G = P0 = I, and Lambda is exact near mu_t for a decoder
    with ReLUs. The extension to other priors is ours. The search runs in representation space, and
    its gradient includes the log-determinant of the prior's map, so that fixed points are modes of
    p(z | x). Lambda is the Gauss-Newton approximation: it omits the curvature of decoder and map,
    and for a mixture P0 is the mean of the components' precisions, weighted by responsibility. It
    is thus positive definite. Also ours: if a step lowers log p(x, z) of a datum, it is divided by
    four, up to five times, and otherwise omitted, since a saturated Bernoulli has almost no
    curvature.

    The encoder's variances are not used. Lambda is factorised, never inverted. The Jacobian needs
    L numbers per datum and unit of the widest layer: 100 MB for L = 64, 3072 outputs and a batch
    of 128 in float32.

    By default gradients pass through all steps. They are those of the mean ELBO if decoder and
    prior are smooth: perceptrons with ``activation="silu"``, and the default ``CouplingPrior``.
    With ReLUs, as in the paper, the gradient omits the jumps of the Jacobian: in one small system
    it is -3.9 instead of -5.6.

    The guide shares decoder and prior with the model. To train a copy, copy both at once:
    ``copy.deepcopy((model, guide))``.

    Args:
        encoder: x -> q(z | x), whose mean is mu_0.
        decoder: p(x | z), the model's ``Decoder``, without batch norm or dropout in training mode.
        prior: p(z), the model's prior.
        steps: number T of steps towards the mode.
        damping: reduction of the first step, from 0 to below 1; 0 with ``decay=0`` is Newton's
            method, and the defaults are those of the paper's code.
        decay: exponent of the decrease of later steps; 0 is no decrease.
        detached: whether the search is a constant for gradients, which then reach the encoder's
            mean unchanged; the covariance keeps its gradients. This is faster, but not the
            gradient of the objective.

    Raises:
        ValueError: if sizes of z differ, a number is out of range, or, on a call, the decoder has
            a batch norm or dropout in training mode.
        TypeError: if the decoder is not a ``Decoder``; on a call, if the likelihood is not
            log-concave in each raw value.

    References:
        Park, Kim, Kim (2019), Variational Laplace Autoencoders, algorithm 1.

    Example:
        >>> from pyro_dpvae.likelihoods import BernoulliLikelihood
        >>> from pyro_dpvae.nn import ARCHITECTURES
        >>> from pyro_dpvae.priors import CouplingPrior
        >>> networks, likelihood = ARCHITECTURES["mlp"], BernoulliLikelihood((1, 8, 8))
        >>> decoder = Decoder(networks.decoder(2, likelihood.raw_shape), likelihood)
        >>> encoder = GaussianEncoder(networks.encoder((1, 8, 8)), 2)
        >>> guide = LaplaceGuide(encoder, decoder, prior=CouplingPrior(2), steps=4)
        >>> guide.posterior(torch.zeros(5, 1, 8, 8)).covariance_matrix.shape
        torch.Size([5, 2, 2])
    """

    def __init__(
        self,
        encoder: GaussianEncoder,
        decoder: AbstractDecoder,
        *,
        prior: AbstractPrior,
        steps: int = 4,
        damping: float = 0.5,
        decay: float = 1.0,
        detached: bool = False,
    ) -> None:
        check_latent_dims(encoder, decoder, prior)
        if not isinstance(decoder, Decoder):
            raise TypeError(
                f"a Laplace guide needs a Decoder, got {type(decoder).__name__}; use "
                "SemiAmortizedGuide, AmortizedGaussian or FlowGuide"
            )
        if not 0 <= damping < 1:
            raise ValueError(f"damping must be at least 0 and below 1, got {damping}")
        if not decay >= 0:
            raise ValueError(f"decay must be at least 0, got {decay}")
        super().__init__()
        self.encoder, self.decoder, self.prior = encoder, decoder, prior
        self.steps = check_positive_int("steps", steps)
        self.damping, self.decay, self.detached = damping, decay, detached

    def posterior(self, x: Tensor) -> TorchDistributionMixin:
        """Return q(z | x), a ``MultivariateNormal``, for x of shape (batch, *data)."""
        _check_single_data(self.decoder.network)
        mean = self.encoder(x).mean
        # Sums over many outputs lose too many digits in lower precision.
        with torch.autocast(x.device.type, enabled=False):
            view = _View(self.decoder, self.prior, x)
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detached):
                mode = mean
                for t in range(self.steps):
                    size = (1 - self.damping) / (t + 1) ** self.decay
                    here = _Expansion(view, mode)
                    step = size * here.newton_step()
                    mode = mode + here.ascending(step) * step
            if self.detached:
                mode = mean + (mode - mean).detach()
            scale_tril = _scale_tril(_Expansion(view, mode).precision())
        return dist.MultivariateNormal(mode, scale_tril=scale_tril)


@final
class _View:
    """log p(x, z) of a batch, as a function of z."""

    def __init__(self, decoder: Decoder, prior: AbstractPrior, x: Tensor) -> None:
        self.likelihood, self.prior, self.x = decoder.likelihood, prior, x
        self.p_z = prior()
        self.linearizer = Linearizer(decoder.network)

    def log_joint(self, z: Tensor, raw: Tensor) -> Tensor:
        """Return log p(x, z) for z of shape (..., batch, L), with the decoder's raw values."""
        return self.likelihood(raw).log_prob(self.x) + self.p_z.log_prob(z)


@final
class _Expansion:
    """log p(x, z) around points z, (batch, L): its gradient and minus its curvature."""

    def __init__(self, view: _View, z: Tensor) -> None:
        self._view, self._z = view, z
        self._raw = view.linearizer.at(z)
        self._gradient, self._weights = view.likelihood.expansion(view.x, self._raw.value)
        self._prior = view.prior.linearize_density(z)

    def precision(self) -> Float[Tensor, "batch latent latent"]:
        """Return Lambda."""
        return self._raw.curvature(self._weights) + self._prior.factor @ self._prior.factor.mT

    def newton_step(self) -> Float[Tensor, "batch latent"]:
        """Return Lambda^-1 grad_z log p(x, z)."""
        prior = self._prior
        with torch.no_grad():
            curvature, gradient = self._raw.normal_equations(self._weights, self._gradient)
            factor = _cholesky(curvature + prior.factor @ prior.factor.mT)
            step = _solve(factor, gradient + prior.gradient)
        if torch.is_grad_enabled():
            step = step + _solve(factor, self._residual(step))
        return step

    @torch.no_grad()
    def ascending(self, step: Tensor) -> Float[Tensor, "batch 1"]:
        """Return the factor on each datum's step for which log p(x, z) does not fall."""
        view, z, network = self._view, self._z, self._view.linearizer.network
        here = view.log_joint(z, self._raw.value)
        ascends = view.log_joint(z + step, network(z + step)) >= here
        shorter = z.new_tensor(_SHORTER).unsqueeze(-1)
        tried = z + shorter.unsqueeze(-1) * step
        needed = (~ascends).expand(tried.shape[:2])
        raw = at_some_rows(
            network, tried.flatten(0, 1), needed.flatten(), like=self._raw.value
        ).unflatten(0, tried.shape[:2])
        largest = torch.where(view.log_joint(tried, raw) >= here, shorter, 0.0).amax(0)
        return torch.where(ascends, 1.0, largest).unsqueeze(-1).to(z.dtype)

    def _residual(self, step: Tensor) -> Tensor:
        """Return grad_z log p(x, z) - Lambda step."""
        of_data = self._raw.pull(self._gradient - self._weights * self._raw.push(step))
        factor = self._prior.factor
        of_prior = self._prior.gradient - (factor @ (factor.mT @ step.unsqueeze(-1))).squeeze(-1)
        return of_data + of_prior


def _cholesky(precision: Tensor) -> Tensor:
    """Return the lower factors of matrices (batch, L, L), regularised against rounding."""
    diagonal = precision.diagonal(dim1=-2, dim2=-1)
    # Relative to each diagonal entry, so that a large one does not change the others.
    rounding = precision.shape[-1] * torch.finfo(precision.dtype).eps
    return torch.linalg.cholesky(precision + torch.diag_embed(rounding * diagonal))


def _solve(factor: Tensor, vectors: Tensor) -> Tensor:
    return torch.cholesky_solve(vectors.unsqueeze(-1), factor).squeeze(-1)


def _scale_tril(precision: Tensor) -> Tensor:
    """Return the lower factor of the inverse of matrices (batch, L, L)."""
    # Backwards in both dimensions, the lower factor becomes an upper one, Lambda = U U'.
    upper = _cholesky(precision.flip((-2, -1))).flip((-2, -1))
    identity = torch.eye(precision.shape[-1], dtype=precision.dtype, device=precision.device)
    return torch.linalg.solve_triangular(upper.mT, identity, upper=False)


def _check_single_data(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm | _DropoutNd) and module.training:
            raise ValueError(
                "the decoder of a Laplace guide must be a function of one datum's z, got "
                f"{type(module).__name__} {name!r} in training mode; use a decoder without it, or "
                "put the layer in evaluation mode"
            )
