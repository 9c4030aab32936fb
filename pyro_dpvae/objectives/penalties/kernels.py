"""Kernels on latent space, as functions of the squared distance."""

import math

import torch
from torch import Tensor

from pyro_dpvae._checks import check_choice, check_positive

__all__ = ["KERNELS", "Kernel", "squared_distances"]

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
