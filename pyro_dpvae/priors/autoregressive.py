"""The autoregressive-flow prior: N(0, I) transformed coordinate by coordinate."""

from collections.abc import Sequence
from typing import cast, final

from torch import nn

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.nn.flow_steps import AutoregressiveStep
from pyro_dpvae.priors._base import AbstractPrior, Points, Values
from pyro_dpvae.priors.flow import FlowDistribution, FlowTransform

__all__ = ["AutoregressivePrior"]


@final
class AutoregressivePrior(AbstractPrior):
    """The AF prior of a lossy VAE: z0 ~ N(0, I), z0 = g(z), with g a stack of masked networks.

    A block maps, in the direction from z to z0,

        z_i <- exp(a_i(z_<i)) z_i + t_i(z_<i),    log |det| = sum_i a_i(z_<i)

    with a and t from one masked perceptron (MADE); the order of coordinates is reversed from block
    to block. A density takes one parallel pass per block. A sample finds one coordinate after
    another, and computes each hidden unit once.

    By default a = 0, as in the paper: every determinant is one. The paper's blocks are MADEs of
    three layers with 640 ReLUs. We count the third layer as the output layer, hence two hidden
    layers of 640 by default; ``hidden=(640, 640, 640)`` is the other interpretation. ELUs instead
    of ReLUs, and the bounds (-2, 2) of a learned a, are our choice.

    Args:
        latent_dim: size L of z, at least 2.
        blocks: number of blocks.
        hidden: widths of the hidden layers of each block.
        mean_only: fix a = 0.
        direct: let coordinates also act linearly on later ones, past the hidden layers. The
            mutual-posterior autoencoder has direct connections and learns a.

    Raises:
        ValueError: if ``latent_dim`` is below 2, or another size is below 1.

    References:
        Chen et al. (2017), Variational lossy autoencoder, section 3.2: the prior, and its
        equivalence to an inverse autoregressive posterior. Papamakarios, Pavlakou, Murray (2017),
        Masked autoregressive flow, equations 3 to 5. Ma, Zhou, Hovy (2019), MAE: code.

    Example:
        >>> import torch
        >>> prior = AutoregressivePrior(3, blocks=2, hidden=(16,), mean_only=False)
        >>> z = prior().sample((5,))
        >>> bool(torch.allclose(prior.to_representation(prior.to_generation(z)[0]), z, atol=1e-5))
        True
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        blocks: int = 4,
        hidden: Sequence[int] = (640, 640),
        mean_only: bool = True,
        direct: bool = False,
    ) -> None:
        super().__init__(latent_dim)
        if latent_dim < 2:
            raise ValueError(
                "latent_dim must be at least 2 for an autoregressive prior, "
                f"got {latent_dim}; use StandardNormal({latent_dim})"
            )
        self.blocks = check_positive_int("blocks", blocks)
        self.steps = nn.ModuleList(
            AutoregressiveStep(
                latent_dim,
                context=0,
                hidden=hidden,
                backwards=block % 2 == 1,
                mean_only=mean_only,
                direct=direct,
            )
            for block in range(blocks)
        )

    def forward(self) -> FlowDistribution:
        """Return p(z), of batch shape () and event shape (L,)."""
        return FlowDistribution(self.base(), FlowTransform(self))

    def to_generation(self, z: Points) -> tuple[Points, Values]:
        """Return z0 = g(z), in one pass for each block, and log |det dg/dz|."""
        log_det = z.new_zeros(z.shape[:-1])
        for step in self._steps():
            z, stretch = step(z, None)
            log_det = log_det + stretch
        return z, log_det

    def to_representation(self, z0: Points) -> Points:
        """Return z = g^-1(z0), one coordinate after another."""
        for step in reversed(self._steps()):
            z0 = step.inverse(z0, None)[0]
        return z0

    def extra_repr(self) -> str:
        """Return the size of z and the number of blocks, for the ``repr``."""
        return f"{super().extra_repr()}, blocks={self.blocks}"

    def _steps(self) -> list[AutoregressiveStep]:
        return [cast(AutoregressiveStep, step) for step in self.steps]
