"""The maximum mean discrepancy between aggregate posterior and prior: InfoVAE."""

from typing import Any, ClassVar, final

from jaxtyping import Float
from torch import Tensor

from pyro_dpvae.objectives.penalties.base import AbstractPenalty
from pyro_dpvae.objectives.penalties.kernels import Kernel
from pyro_dpvae.objectives.penalties.latents import Latents
from pyro_dpvae.objectives.schedules import Weight

__all__ = ["MMD", "mmd_squared"]


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

    smallest_batch: ClassVar[int] = 2

    def __init__(
        self, weight: Weight, *, kernel: str = "rbf", bandwidth: float | None = None
    ) -> None:
        super().__init__(mmd=weight)
        self.kernel = Kernel(kernel, bandwidth=bandwidth)

    def forward(self, latents: Latents) -> dict[str, Float[Tensor, ""]]:
        """Return the term."""
        q, p = latents.value, latents.prior_sample()
        k = self.kernel
        return {"mmd": mmd_squared(k(q, q), k(p, p), k(q, p)).mean()}

    @property
    def settings(self) -> dict[str, Any]:
        """The weight, and the kernel and its bandwidth."""
        kernel = self.kernel
        return {**super().settings, "kernel": kernel.name, "bandwidth": kernel.bandwidth}


def _off_diagonal_mean(kernel: Tensor) -> Tensor:
    size = kernel.shape[-1]
    total = kernel.sum((-2, -1)) - kernel.diagonal(dim1=-2, dim2=-1).sum(-1)
    return total / (size * (size - 1))
