"""The maximum mean discrepancy between aggregate posterior and prior: InfoVAE; and kernels."""

import math
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_dpvae._checks import check_choice, check_positive
from pyro_dpvae.objectives.penalties.latents import AbstractPenalty, Latents
from pyro_dpvae.objectives.schedules import Weight

__all__ = ["KERNELS", "MMD", "Kernel", "mmd_squared", "squared_distances"]

_MULTIPLES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return |a_i - b_j|^2 of points (*batch, n, L) and (*batch, m, L), as (*batch, n, m)."""
    # Centred, since a matrix product of large numbers loses digits.
    centre = b.detach().mean(-2, keepdim=True)
    a, b = a - centre, b - centre
    squares = a.square().sum(-1).unsqueeze(-1) + b.square().sum(-1).unsqueeze(-2)
    return (squares - 2 * a @ b.mT).clamp(min=0)


KERNELS = ("authors", "imq", "rbf")
"""Names of kernels; see :class:`Kernel`."""


class Kernel:
    """A kernel k(a, b) on vectors of size L, with s = 2 bandwidth^2.

    - ``rbf``: exp(-|a - b|^2 / s);
    - ``imq``: sum over c of c s / (c s + |a - b|^2), with c in {.1, .2, .5, 1, 2, 5, 10};
    - ``authors``: exp(-|a - b|^2 / L^2), the kernel of InfoVAE's published code.

    Args:
        name: one of ``KERNELS``.
        bandwidth: the bandwidth; None uses sqrt(L), so that s is the mean squared distance of two
            samples of N(0, I).

    Raises:
        ValueError: if the name is unknown, the bandwidth not positive, or given for ``authors``.

    References:
        Tolstikhin et al. (2018), Wasserstein auto-encoders, section 4 (inverse multiquadric).
        Zhao, Song, Ermon (2019), InfoVAE.

    Example:
        >>> Kernel("rbf")(torch.zeros(1, 2), torch.tensor([[0.0, 2.0]]))
        tensor([[0.3679]])
    """

    def __init__(self, name: str, *, bandwidth: float | None = None) -> None:
        self.name = check_choice("kernel", name, KERNELS)
        if bandwidth is not None:
            check_positive("bandwidth", bandwidth)
            if name == "authors":
                raise ValueError(
                    f"bandwidth must be None for kernel 'authors', got {bandwidth}; use kernel "
                    "'rbf' to set it"
                )
        self.bandwidth = bandwidth

    def scale(self, latent_dim: int) -> float:
        """Return s for vectors of size ``latent_dim``."""
        if self.name == "authors":
            return float(latent_dim**2)
        bandwidth = math.sqrt(latent_dim) if self.bandwidth is None else self.bandwidth
        return 2 * bandwidth**2

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Return k(a_i, b_j) of points (*batch, n, L) and (*batch, m, L)."""
        squared, scale = squared_distances(a, b), self.scale(a.shape[-1])
        if self.name == "imq":
            return torch.stack([c * scale / (c * scale + squared) for c in _MULTIPLES]).sum(0)
        return torch.exp(-squared / scale)


def mmd_squared(
    within_q: Float[Tensor, "*batch n n"],
    within_p: Float[Tensor, "*batch m m"],
    between: Float[Tensor, "*batch n m"],
) -> Float[Tensor, "*batch"]:
    """Return the unbiased estimate of MMD^2 from kernel matrices, a U-statistic.

        1/(n(n-1)) sum_{i != j} k(q_i, q_j) + 1/(m(m-1)) sum_{i != j} k(p_i, p_j)
            - 2/(nm) sum_{ij} k(q_i, p_j)

    It may be negative, since its expectation is zero for two samples of one distribution.

    References:
        Gretton et al. (2012), A kernel two-sample test, equation 3.
    """
    return _off_diagonal_mean(within_q) + _off_diagonal_mean(within_p) - 2 * between.mean((-2, -1))


@final
class MMD(AbstractPenalty):
    """The squared maximum mean discrepancy between q(z) and p(z), estimated from a batch.

    The term ``mmd`` compares z of the batch with as many samples of the prior. Gradients reach the
    encoder and, through these samples, the prior. If the prior is a mixture whose components are
    summed out, gradients reach its weights only if components are diagonal normals, not under
    couplings.

    Args:
        weight: the weight of the term.
        kernel: ``rbf``, ``imq`` or ``authors``; see :class:`Kernel`.
        bandwidth: bandwidth of the kernel; None uses sqrt(L).

    Raises:
        ValueError: for an unknown kernel or a bandwidth that is not positive; on a step, if the
            batch has one datum.

    References:
        Zhao, Song, Ermon (2019), InfoVAE: Balancing learning and inference in VAEs, equation 6 and
        section 3.2.

    Example:
        >>> MMD(100.0, kernel="imq").settings
        {'mmd': 100.0, 'kernel': 'imq', 'bandwidth': None}
    """

    options = ("kernel", "bandwidth")
    smallest_batch: ClassVar[int] = 2

    def __init__(
        self, weight: Weight, *, kernel: str = "rbf", bandwidth: float | None = None
    ) -> None:
        super().__init__(mmd=weight)
        self.kernel, self.bandwidth = kernel, bandwidth
        self._kernel = Kernel(kernel, bandwidth=bandwidth)

    def forward(self, latents: Latents) -> dict[str, Float[Tensor, ""]]:
        """Return the term."""
        q, p = latents.value, latents.prior_sample()
        k = self._kernel
        return {"mmd": mmd_squared(k(q, q), k(p, p), k(q, p)).mean()}


def _off_diagonal_mean(kernel: Tensor) -> Tensor:
    size = kernel.shape[-1]
    total = kernel.sum((-2, -1)) - kernel.diagonal(dim1=-2, dim2=-1).sum(-1)
    return total / (size * (size - 1))
