"""The flow guide: q(z | x) is a diagonal Gaussian transformed by steps that depend on x."""

from collections.abc import Sequence
from typing import NamedTuple, cast, final

import torch
from torch import Tensor, nn

from pyro_dpvae._checks import check_choice, check_positive_int
from pyro_dpvae.encoders import diagonal_normal
from pyro_dpvae.guides._base import AbstractGuide
from pyro_dpvae.nn import with_head
from pyro_dpvae.nn.flow_steps import AbstractStep, AutoregressiveStep, CouplingStep
from pyro_dpvae.priors import FlowDistribution, FlowTransform

__all__ = ["FlowGuide"]


@final
class FlowGuide(AbstractGuide):
    """The guide q(z | x) of z = f_K(... f_1(z0)), z0 ~ N(mu(x), diag sigma^2(x)).

    Steps f_k are affine in each coordinate. Their log scales a_k lie in (-2, 2) and depend on
    other coordinates and on a context h(x). Steps start near the identity:

        log q(z | x) = log N(z0; mu(x), diag sigma^2(x)) - sum_k sum_j a_kj.

    For kind ``"iaf"`` a step's coordinate depends on those before it, and the order is reversed
    from step to step. For kind ``"coupling"`` one half depends on the other, and the halves
    alternate. Sampling takes one pass of each step's network. So does the density with couplings.
    With the autoregressive flow the density takes L sequential passes, but none for the
    distribution's last sample, whose z0 is remembered: Pyro scores exactly this tensor.

    The remembered values are used only for that same tensor, while neither it nor a parameter of
    the steps has changed in place (changes through ``.data`` are not detected), and with gradients
    only if it was sampled with them. Its log q(z | x) then has the same gradients as by L passes,
    to everything that the sample depends on except the sample itself: for the score d log q / dz
    evaluate the density at ``z.detach().requires_grad_()``.

    Args:
        network: x -> features, any module; a linear layer after it returns (mu, log sigma^2, h).
        latent_dim: size L of z.
        kind: the steps: ``"iaf"``, inverse autoregressive, or ``"coupling"``.
        context: number of features h of x that every step reads.
        blocks: number K of steps of the flow.
        hidden: widths of the hidden layers in each step's network.
        in_shape: shape of an item, as for ``GaussianEncoder``.

    Raises:
        TypeError: if the network is not a module.
        ValueError: if the kind is unknown, a size is below 1, couplings would act on a single
            latent, or the network takes other data.

    References:
        Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling (2016), Improved variational
        inference with inverse autoregressive flow, algorithm 1. Dinh, Sohl-Dickstein, Bengio
        (2017), Density estimation using Real NVP; couplings as a posterior, and bounded log scales
        instead of algorithm 1's sigmoid gate, are our choice.

    Example:
        >>> from pyro_dpvae.nn import ARCHITECTURES
        >>> guide = FlowGuide(ARCHITECTURES["moons"].encoder((2,)), 2, kind="coupling")
        >>> q = guide.posterior(torch.zeros(5, 2))
        >>> q.log_prob(torch.zeros(7, 1, 2)).shape
        torch.Size([7, 5])
    """

    def __init__(
        self,
        network: nn.Module,
        latent_dim: int,
        *,
        kind: str = "iaf",
        context: int = 64,
        blocks: int = 4,
        hidden: Sequence[int] = (128, 128),
        in_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.latent_dim = check_positive_int("latent_dim", latent_dim)
        self.kind = check_choice("kind", kind, ("iaf", "coupling"))
        if kind == "coupling" and latent_dim < 2:
            raise ValueError("latent_dim must be at least 2 for couplings, got 1; use kind 'iaf'")
        self.context = check_positive_int("context", context)
        self.network = with_head(network, latent_dim, in_shape=in_shape, extra=context)
        step = AutoregressiveStep if kind == "iaf" else CouplingStep
        self.steps = nn.ModuleList(
            step(latent_dim, context=self.context, hidden=hidden, backwards=block % 2 == 1)
            for block in range(check_positive_int("blocks", blocks))
        )

    def posterior(self, x: Tensor) -> FlowDistribution:
        """Return q(z | x), for x of shape (batch, *data)."""
        sizes = [self.latent_dim, self.latent_dim, self.context]
        mean, log_variance, h = self.network(x).split(sizes, -1)
        steps = cast(list[AbstractStep], list(self.steps))
        transform = FlowTransform(_Flow(steps, remembers=self.kind == "iaf"), context=h)
        return FlowDistribution(diagonal_normal(mean, log_variance), transform)


class _Draw(NamedTuple):
    z: Tensor
    h: Tensor
    z0: Tensor
    log_det: Tensor
    tracked: bool
    state: object


@final
class _Flow:
    """The steps with contexts h, (*batch, context), as a flow.

    Args:
        steps: the steps.
        remembers: invert the last sample without a pass, if nothing has changed since.
    """

    def __init__(self, steps: Sequence[AbstractStep], *, remembers: bool) -> None:
        self.steps, self._remembers = steps, remembers
        self._drawn: _Draw | None = None

    def to_representation(self, z0: Tensor, h: Tensor) -> Tensor:
        z = _for_each_datum(z0, h)
        log_det = z.new_zeros(z.shape[:-1])
        for step in self.steps:
            z, stretch = step(z, h)
            log_det = log_det - stretch
        self._drawn = None
        # In-place changes of inference tensors are not counted.
        if self._remembers and not z.is_inference():
            self._drawn = _Draw(z, h, z0, log_det, torch.is_grad_enabled(), self._state(z))
        return z

    def to_generation(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        drawn = self._drawn
        if (
            drawn is not None
            and drawn.z is z
            and drawn.h is h
            and (drawn.tracked or not torch.is_grad_enabled())
            and drawn.state == self._state(z)
        ):
            return drawn.z0, drawn.log_det
        z0 = _for_each_datum(z, h)
        log_det = z0.new_zeros(z0.shape[:-1])
        for step in reversed(self.steps):
            z0, stretch = step.inverse(z0, h)
            log_det = log_det - stretch
        return z0, log_det

    def _state(self, z: Tensor) -> object:
        parameters = [one for step in self.steps for one in step.parameters()]
        return z.requires_grad, z._version, [(id(one), one._version) for one in parameters]


def _for_each_datum(z: Tensor, h: Tensor) -> Tensor:
    batch = torch.broadcast_shapes(z.shape[:-1], h.shape[:-1])
    return z.expand(*batch, z.shape[-1])
