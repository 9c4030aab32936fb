"""True posteriors p(z | x) over two latents on a grid, and their KL divergence from q(z | x)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from pyro_dpvae._checks import check_positive, check_positive_int
from pyro_dpvae.decoders import AbstractDecoder
from pyro_dpvae.metrics.estimate import Estimate, mean_estimate
from pyro_dpvae.nn.modes import in_evaluation
from pyro_dpvae.priors import AbstractPrior

__all__ = ["PosteriorGrid", "cell_kl", "log_cell_mass", "posterior_grid", "posterior_kl"]

# If the grids of every second cell agree to 20 %, a sum over all cells errs by 3e-5 for a normal.
_COARSE = 0.2
_FEW = 8  # data at a time: a mixture takes data x cells x components x 2 numbers
_OUTSIDE = 1e-3  # of the mass of p(z | x) on the border, or of q(z | x) off the grid


@final
@dataclass(frozen=True)
class PosteriorGrid:
    """p(z | x) of each datum in the cells of a square around the origin.

    Attributes:
        x: the data, of shape (batch, *data).
        z: the centers of the cells, (side^2, 2), with the second coordinate varying fastest.
        log_mass: log of the probability of each cell under p(z | x), in float64.
        log_evidence: log p(x), in nats, in float64.
        reach: half the width of the square, from center to center.
        side: number of cells along a side.
    """

    x: Float[Tensor, "batch ..."]
    z: Float[Tensor, "cells 2"]
    log_mass: Float[Tensor, "batch cells"]
    log_evidence: Float[Tensor, "batch"]
    reach: float
    side: int

    @property
    def log_area(self) -> float:
        """The log of a cell's area."""
        return 2 * math.log(2 * self.reach / (self.side - 1))

    def of_datum(self, index: int) -> "PosteriorGrid":
        """Return the grid of one datum, as a batch of one."""
        one = slice(index, index + 1)
        return replace(
            self,
            x=self.x[one],
            log_mass=self.log_mass[one],
            log_evidence=self.log_evidence[one],
        )


@in_evaluation()
def posterior_grid(
    prior: AbstractPrior,
    decoder: AbstractDecoder,
    x: Float[Tensor, "batch ..."],
    *,
    reach: int | float = 5.0,
    side: int = 201,
) -> PosteriorGrid:
    """Return p(z | x) = p(z) p(x | z) / p(x) on a grid, where p(x) is the sum over its cells.

    Densities have the dtype of x, prior and decoder; sums are in float64. The result holds batch x
    side^2 numbers.

    Args:
        prior: p(z), with two latents.
        decoder: p(x | z).
        x: the data, of shape (batch, *data).
        reach: half the width of the square.
        side: number of cells along a side, at least 3.

    Raises:
        ValueError: if z has not two latents, ``reach`` is not positive, or ``side`` is below 3; if
            the outermost cells hold more than 0.001 of a posterior; if p(x) on the grids of every
            second cell differs by more than 20 %.

    Example:
        >>> from pyro_dpvae.decoders import Decoder
        >>> from pyro_dpvae.likelihoods import GaussianLikelihood
        >>> from pyro_dpvae.nn import Batched
        >>> from pyro_dpvae.priors import StandardNormal
        >>> identity = Batched(torch.nn.Identity(), in_shape=(2,), out_shape=(2,))
        >>> decoder = Decoder(identity, GaussianLikelihood((2,), variance=1.0))
        >>> grid = posterior_grid(StandardNormal(2), decoder, torch.zeros(1, 2))
        >>> grid.log_evidence  # N(x; 0, 2 I)
        tensor([-2.5310], dtype=torch.float64)
    """
    if prior.latent_dim != 2:
        raise ValueError(
            f"prior must have two latents for a grid, got {prior.latent_dim}; use "
            "negative_log_likelihood for more"
        )
    reach = check_positive("reach", float(reach))
    if check_positive_int("side", side) < 3:
        raise ValueError(f"side must be at least 3, got {side}")
    line = torch.linspace(-reach, reach, side, dtype=torch.float64, device=x.device)
    z = torch.cartesian_prod(line, line)
    with torch.no_grad():
        points = z.to(x.dtype)
        likelihood, log_prior = decoder(points), prior().log_prob(points)
        log_joint = torch.stack([(log_prior + likelihood.log_prob(one)).double() for one in x])
        log_joint = log_joint + 2 * math.log(2 * reach / (side - 1))
        log_evidence = log_joint.logsumexp(-1)
        log_mass = log_joint - log_evidence[:, None]
    _check_grid(log_mass.exp().unflatten(-1, (side, side)), reach)
    return PosteriorGrid(x, z, log_mass, log_evidence, reach, side)


def log_cell_mass(
    posterior: Callable[[Tensor], Distribution], grid: PosteriorGrid
) -> Float[Tensor, "batch cells"]:
    """Return log Q of each datum and cell, where Q is q(z | x) times the area of a cell.

    Args:
        posterior: x -> q(z | x), such as a guide's ``posterior``.
        grid: the true posteriors, from :func:`posterior_grid`.

    Raises:
        ValueError: if the masses Q of a datum do not add up to 1 within 0.001, since the grid is
            too small or too coarse for q(z | x).
    """
    with torch.no_grad(), in_evaluation(posterior):
        points = grid.z.to(grid.x.dtype)[:, None]
        log_densities = [
            posterior(few).log_prob(points.expand(-1, len(few), -1)).double().T
            for few in grid.x.split(_FEW)
        ]
        log_q = torch.cat(log_densities) + grid.log_area
    total = log_q.exp().sum(-1)
    worst = float(total[(total - 1).abs().argmax()])
    if not abs(worst - 1) <= _OUTSIDE:
        raise ValueError(
            f"the cells must hold q(z | x) to {_OUTSIDE:g}, got {worst:.4f} of a datum's "
            "probability; " + _remedy(grid.reach, grid.side)
        )
    return log_q


def cell_kl(
    log_q: Float[Tensor, "batch cells"], log_p: Float[Tensor, "batch cells"]
) -> Float[Tensor, "batch"]:
    """Return the sum over cells of Q log(Q / P) from log Q and log P, in nats.

    Example:
        >>> cell_kl(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log())
        tensor([0.1438])
    """
    q = log_q.exp()
    # Where q underflows to 0 its logarithm may be -inf.
    return torch.where(q > 0, q * (log_q - log_p), 0.0).sum(-1)


def posterior_kl(posterior: Callable[[Tensor], Distribution], grid: PosteriorGrid) -> Estimate:
    """Return KL(q(z | x) || p(z | x)) in nats, averaged over the data of a grid.

        KL = sum over cells of  Q log(Q / P),    Q = q(z | x) times the area of a cell,

    where P is the posterior's mass in the cell. It is the gap between log p(x) and the ELBO of q.
    The standard error is that of the mean over data.

    Args:
        posterior: x -> q(z | x), such as a guide's ``posterior``.
        grid: the true posteriors, from :func:`posterior_grid`.

    Raises:
        ValueError: as :func:`log_cell_mass`.

    Example:
        >>> from pyro.distributions import Normal
        >>> from pyro_dpvae.decoders import Decoder
        >>> from pyro_dpvae.likelihoods import GaussianLikelihood
        >>> from pyro_dpvae.nn import Batched
        >>> from pyro_dpvae.priors import StandardNormal
        >>> identity = Batched(torch.nn.Identity(), in_shape=(2,), out_shape=(2,))
        >>> decoder = Decoder(identity, GaussianLikelihood((2,), variance=1.0))
        >>> grid = posterior_grid(StandardNormal(2), decoder, torch.randn(5, 2))
        >>> exact = lambda x: Normal(x / 2, 0.5**0.5).to_event(1)
        >>> abs(posterior_kl(exact, grid).value) < 1e-6
        True
    """
    divergences = cell_kl(log_cell_mass(posterior, grid), grid.log_mass)
    return mean_estimate(divergences, {"reach": grid.reach, "side": grid.side})


def _check_grid(mass: Tensor, reach: float) -> None:
    """Raise for masses (batch, side, side) on the border, or between cells."""
    side = mass.shape[-1]
    border = float((1 - mass[:, 1:-1, 1:-1].sum((-1, -2))).amax())
    if not border <= _OUTSIDE:
        raise ValueError(
            f"the outermost cells must hold at most {_OUTSIDE:g} of p(z | x), got {border:.4f}; "
            + _remedy(reach, side)
        )
    quarters = [mass[:, i::2, j::2].sum((-1, -2)) for i in (0, 1) for j in (0, 1)]
    error = float((4 * torch.stack(quarters) - 1).abs().amax())
    if error > _COARSE:
        raise ValueError(
            f"the grids of every second cell must agree to {_COARSE:g}, got {error:.2f}: the grid "
            "is too coarse for p(z | x); " + _remedy(reach, side)
        )


def _remedy(reach: float, side: int) -> str:
    return f"raise reach, now {reach:g}, or side, now {side}"
