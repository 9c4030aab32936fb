"""The Laplace guide: q(z | x) is a Gaussian at the mode of the posterior, of full covariance."""

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
from pyro_dpvae.priors import AbstractPrior

__all__ = ["LaplaceGuide"]

# Of a step that lowers log p(x, z): what is tried, the longest last. Then z stays.
# Each is a pass of the decoder for all data: quarters reach 2^-10 in half the passes of halves.
_SHORTER = tuple(4.0**-power for power in reversed(range(6)))


@final
class LaplaceGuide(AbstractGuide):
    """q(z | x) = N(z; mu_T, Lambda_T^-1): T damped Newton steps from the encoder's mean.

    With W the Jacobian of the decoder's raw values, R minus the second derivative of
    log p(x | raw), G the Jacobian of the prior's map to generation space, and P0 minus the second
    derivative of log p0 there, all at mu_t,

        Lambda_t = W' R W + G' P0 G
        mu_{t+1} = mu_t + a_t Lambda_t^-1 grad_z log p(x, z)
        a_t = (1 - damping) / (t + 1)^decay

    and the covariance is that of Lambda at mu_T. In the paper the prior is standard, G = P0 = I,
    and for a decoder of ReLUs Lambda is exact around mu_t. The rest is derived here. The search
    runs in representation space, where the gradient is that of log p(z) itself, log-determinant
    included, so that its fixed points are modes of p(z | x), and where q(z | x) stays a Gaussian
    in every objective and metric. A search in generation space would end at another point, and
    its Gaussian there is none in z. The curvature of both the decoder and the prior's map is
    left out of Lambda (Gauss-Newton), and of a p0 that is not log-concave what would take from
    P0: of a mixture P0 is the components' precisions, each by its responsibility. That keeps
    Lambda positive definite; with an affine map and decoder and p0 = N(0, I) nothing is left
    out. A datum's step that would lower log p(x, z) is cut to a quarter until it does not, up to
    five times, which is derived here too: a saturated Bernoulli has next to no curvature, and a
    plain step then goes anywhere.

    The encoder's variances are not used. The Jacobian of a perceptron is a product of its
    weights with the slopes of its units, and any other network is differentiated by
    ``torch.func``.
    Lambda is factorised, never inverted. Beside the decoder's own activations a step holds the
    Jacobian, L numbers for each unit of its widest layer and each datum: 100 MB for L = 64, 3072
    outputs and a batch of 128 in float32.

    Gradients run through all steps by default. They are the gradient of the mean bound where
    decoder and prior are smooth: perceptrons with ``activation="silu"``, and ``CouplingPrior`` at
    its default. Under ReLUs the Jacobian jumps where a unit switches, and the gradient lacks what
    the jumps contribute: a derivative of -3.9 in place of -5.6, in one small system. The paper's
    networks are of ReLUs, and its gradients likewise.

    A step's own gradient takes two products with W and not a derivative of Lambda: if d solves
    Lambda d = r without gradients, then d + Lambda^-1 (r - Lambda d), with gradients in the
    brackets alone, has the solution's value and gradient.

    Decoder and prior are parts of the guide as of the model. A copy of the two that is to train
    has to be made of both at once: ``copy.deepcopy((model, guide))``.

    Args:
        encoder: x -> q(z | x), whose mean is mu_0.
        decoder: p(x | z), that of the model, a ``Decoder``; its raw values must be a function of
            one datum's z, so it may hold no batch norm or dropout in training mode.
        prior: p(z), that of the model.
        steps: the number T of steps.
        damping: by how much the first step is shortened, at least 0 and below 1.
        decay: how steps shorten further; 0 keeps their length. The defaults are those of the
            paper's code; damping and decay 0 make Newton's method.
        detached: whether the search is a constant to gradients: those that reach mu_T go to the
            encoder's mean as they are. The covariance keeps its gradients. Takes less time, and
            the gradient is not that of the objective.

    Raises:
        ValueError: if sizes of z differ, a number is out of range, or, on a call, the decoder has
            a batch norm or dropout in training mode.
        TypeError: if the decoder is not a ``Decoder``; on a call, if the likelihood is not
            log-concave pixel by pixel.

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
                "a Laplace guide expands log p(x | z) in raw values that depend on z alone, so it "
                f"needs a Decoder, got {type(decoder).__name__}; use SemiAmortizedGuide, "
                "AmortizedGaussian or FlowGuide"
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
        # Sums over a thousand outputs must cancel to well below a standard deviation of q.
        with torch.autocast(x.device.type, enabled=False):
            view = _View(self.decoder, self.prior, x)
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detached):
                mode = mean
                for t in range(self.steps):
                    size = (1 - self.damping) / (t + 1) ** self.decay
                    step = size * view.at(mode).newton_step()
                    mode = mode + view.ascending(mode, step) * step
            if self.detached:
                mode = mean + (mode - mean).detach()
            scale_tril = _scale_tril(view.at(mode).precision())
        return dist.MultivariateNormal(mode, scale_tril=scale_tril)


@final
class _View:
    """log p(x, z) of a batch, as a function of z."""

    def __init__(self, decoder: Decoder, prior: AbstractPrior, x: Tensor) -> None:
        self.likelihood, self.prior, self.x = decoder.likelihood, prior, x
        self.p_z = prior()  # one for all steps, which compare values
        self.linearizer = Linearizer(decoder.network)

    def at(self, z: Tensor) -> "_Expansion":
        return _Expansion(self, z)

    @torch.no_grad()
    def ascending(self, z: Tensor, step: Tensor) -> Float[Tensor, "batch 1"]:
        """Return by what to multiply the step of each datum, so that log p(x, z) does not fall."""
        here = self._log_joint(z)
        factor = torch.zeros_like(here)
        for shorter in _SHORTER:
            factor = torch.where(self._log_joint(z + shorter * step) >= here, shorter, factor)
        return factor.unsqueeze(-1).to(z.dtype)

    def _log_joint(self, z: Tensor) -> Tensor:
        raw = self.linearizer.network(z)
        return self.likelihood(raw).log_prob(self.x) + self.p_z.log_prob(z)


@final
class _Expansion:
    """log p(x, z) around points z, (batch, L): its gradient and minus its curvature."""

    def __init__(self, view: _View, z: Tensor) -> None:
        self._raw = view.linearizer.at(z)
        self._gradient, self._weights = view.likelihood.expansion(view.x, self._raw.value)
        self._prior = view.prior.linearize_density(z)

    def precision(self) -> Float[Tensor, "batch latent latent"]:
        """Return Lambda."""
        return self._raw.curvature(self._weights) + self._prior.factor @ self._prior.factor.mT

    def newton_step(self) -> Float[Tensor, "batch latent"]:
        """Return Lambda^-1 grad_z log p(x, z)."""
        with torch.no_grad():
            factor = _cholesky(self.precision())
            step = _solve(factor, self._residual(None))
        if torch.is_grad_enabled():
            step = step + _solve(factor, self._residual(step))
        return step

    def _residual(self, step: Tensor | None) -> Tensor:
        """Return grad_z log p(x, z) - Lambda step."""
        if step is None:
            return self._raw.pull(self._gradient) + self._prior.gradient
        of_data = self._raw.pull(self._gradient - self._weights * self._raw.push(step))
        factor = self._prior.factor
        of_prior = self._prior.gradient - (factor @ (factor.mT @ step.unsqueeze(-1))).squeeze(-1)
        return of_data + of_prior


def _cholesky(precision: Tensor) -> Tensor:
    """Return the lower factor of matrices (batch, L, L), of which rounding makes none singular."""
    diagonal = precision.diagonal(dim1=-2, dim2=-1)
    # Of each coordinate's own size, so that a sharp one leaves the others as they are.
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
                "a Laplace guide differentiates the decoder for each datum by itself, as one "
                f"function of z, which {type(module).__name__} {name!r} in training mode is not; "
                "use a decoder without it, or put the layer in evaluation mode"
            )
