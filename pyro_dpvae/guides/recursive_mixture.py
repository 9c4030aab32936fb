"""The recursive mixture guide: a mixture of encoders that grows by one component at a time."""

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_dpvae._checks import check_choice, check_positive, check_positive_int
from pyro_dpvae.distributions import DiagonalNormalMixture
from pyro_dpvae.encoders import WeightedGaussianEncoder
from pyro_dpvae.guides._base import AbstractGuide
from pyro_dpvae.guides._fitting import Passes, check_passes, descend, gain
from pyro_dpvae.nn.modes import in_evaluation

__all__ = ["RecursiveMixtureGuide"]

_DIFFERENCE = 0.1  # of a copy's weights, in standard deviations


@final
class RecursiveMixtureGuide(AbstractGuide):
    """The guide q(z | x) = sum_m a_m(x) N(z; mu_m(x), diag sigma_m^2(x)), a growing mixture.

    Each component m is an encoder with its own network; the first ``active`` encoders form the
    mixture. The weights a(x) are the softmax of their logits.

    The gradient to mu_m(x) and sigma_m(x) through z is divided by M a_m(x), for M active
    components, so that components learn equally fast. This is the natural gradient, since the
    Fisher information of (m, z) has the factor a_m(x) there. With the plain gradient, the
    component with the largest weight learns fastest, gains weight, and soon is the only one.

    :meth:`grow` fits the next component and adds it to the mixture; afterwards SVI trains all
    active components, their weights and the model together. ``active=len(encoders)`` is a plain
    mixture. ``state_dict()`` contains the number of active components.

    Args:
        encoders: the components, with one latent size and no shared parameters.
        active: number of components in the mixture at first.
        start: initial parameters of a new component, if the last active one has the same names and
            shapes. ``copy`` takes those of the last one, with noise of a tenth of their standard
            deviation on weights; it suits unimodal posteriors that one encoder does not match.
            ``trunk`` takes all layers but the last linear one, so that the component starts far
            away and finds other modes.

    Attributes:
        components: all components, active or not.

    Raises:
        ValueError: if there is no encoder, latent sizes differ, parameters are shared, or
            ``active`` is not between 1 and the number of encoders, also on loading.

    References:
        Kim, Pavlovic (2020), Recursive Inference for Variational Autoencoders. Our choices: the
        bounded divergence, the weights and a component's start. Lin, Khan, Schmidt (2019), Fast
        and simple natural-gradient variational inference with mixture of exponential-family
        approximations.

    Example:
        >>> from pyro_dpvae.nn import ARCHITECTURES
        >>> network = ARCHITECTURES["moons"].encoder
        >>> encoders = [WeightedGaussianEncoder(network((2,)), 4) for _ in range(3)]
        >>> guide = RecursiveMixtureGuide(encoders, active=2)
        >>> guide.posterior(torch.zeros(5, 2)).logits.shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        encoders: Sequence[WeightedGaussianEncoder],
        *,
        active: int = 1,
        start: str = "copy",
    ) -> None:
        check_choice("start", start, ("copy", "trunk"))
        encoders = list(encoders)
        if not encoders:
            raise ValueError("encoders must have at least one encoder, got none")
        sizes = [encoder.latent_dim for encoder in encoders]
        if len(set(sizes)) > 1:
            raise ValueError(f"encoders must agree on latent_dim, got {sizes}")
        parameters = [p for encoder in encoders for p in encoder.parameters()]
        if len({id(p) for p in parameters}) < len(parameters):
            raise ValueError(
                "encoders must have networks of their own, got encoders that share parameters; "
                "build a network for each"
            )
        super().__init__()
        self.components = nn.ModuleList(encoders)
        self.active, self.start = active, start

    @property
    def num_components(self) -> int:
        """The number of components, active or not."""
        return len(self.components)

    @property
    def active(self) -> int:
        """The number of components in the mixture."""
        return self._active

    @active.setter
    def active(self, number: int) -> None:
        if not 1 <= number <= self.num_components:
            raise ValueError(
                f"active must be between 1 and the {self.num_components} components, got {number}"
            )
        self._active = number

    def posterior(self, x: Tensor) -> TorchDistributionMixin:
        """Return q(z | x), for x of shape (batch, *data); normals for one component."""
        return self._mixture(x)[0]

    def grow(
        self,
        model: Callable[..., Any],
        batches: Passes,
        *,
        steps: int = 500,
        learning_rate: float = 1e-3,
        bound: float = 5.0,
        progress: bool = True,
    ) -> None:
        """Fit the next component, with everything else fixed, and add it to the mixture.

        With the mixture Q and the new component q, Adam maximises over q, averaged over data,

            E_q[log p(x, z) - log q(z | x)] + KL(q || (1 - e) Q + e q),    e = exp(-bound),

        the component's ELBO, and its divergence from the mixture. With KL(q || Q) as the
        divergence, this would be E_q[log p(x, z) - log Q(z | x)], the direction in which a small
        share of q reduces KL(Q || p(z | x)) fastest; but that KL is unbounded, so that q could
        leave the posterior. The skewed divergence is at most ``bound``, where its gradient
        vanishes.

        The weight's logit meanwhile maximises the ELBO of the grown mixture, estimated by one
        sample of q and one of Q, without gradients to means and variances.

        The model and the active components do not change, and modules are in evaluation mode
        meanwhile. Scales of the model's sites are ignored. If growing fails or is interrupted, the
        guide is unchanged.

        Args:
            model: p(x, z), a Pyro model of a batch with the single latent site ``"z"``.
            batches: tensors of shape (batch, *data), taken epoch after epoch; or a function from
                the number of an epoch to them, such as ``Batches.epoch``.
            steps: number of steps of Adam.
            learning_rate: learning rate of Adam.
            bound: upper bound of the divergence, in nats.
            progress: whether to show a progress bar.

        Raises:
            TypeError: if ``batches`` can be iterated only once.
            ValueError: if all components are active, an option is not positive, an epoch has no
                batch, the model has other latent sites, or the component diverges.

        References:
            Kim, Pavlovic (2020), Recursive Inference for Variational Autoencoders, for the two
            terms; the bound and the fit of the weight are our choice.

        Example:
            >>> from pyro import plate, sample
            >>> from pyro_dpvae.decoders import Decoder
            >>> from pyro_dpvae.likelihoods import GaussianLikelihood
            >>> from pyro_dpvae.nn import ARCHITECTURES
            >>> from pyro_dpvae.priors import StandardNormal
            >>> moons, prior = ARCHITECTURES["moons"], StandardNormal(4)
            >>> decoder = Decoder(moons.decoder(4, (2,)), GaussianLikelihood((2,), variance=0.1))
            >>> def model(x):
            ...     with plate("data", len(x)):
            ...         sample("x", decoder(sample("z", prior())), obs=x)
            >>> encoders = [WeightedGaussianEncoder(moons.encoder((2,)), 4) for _ in range(2)]
            >>> guide = RecursiveMixtureGuide(encoders)
            >>> guide.grow(model, [torch.zeros(8, 2)], steps=3, progress=False)
            >>> guide.active
            2
        """
        if self.active == self.num_components:
            raise ValueError(
                "a mixture must have an inactive component to grow, got all "
                f"{self.active} active; build the guide with more encoders"
            )
        check_positive_int("steps", steps)
        for name, value in (("learning_rate", learning_rate), ("bound", bound)):
            check_positive(name, value)
        component, last = self.components[self.active], self.components[self.active - 1]
        training = component.training
        before = {name: tensor.clone() for name, tensor in component.state_dict().items()}
        try:
            with in_evaluation(self, model, others=False):
                component.train(training)
                self._start_from(last, component)
                check_passes(batches)
                parameters = [one for one in component.parameters() if one.requires_grad]
                if not parameters:
                    raise ValueError(
                        "the new component has no parameters that require gradients; call "
                        "requires_grad_() on its encoder"
                    )
                descend(
                    component,
                    lambda x: -gain(component, self._mixture, model, x, bound=bound).mean(),
                    batches,
                    steps=steps,
                    learning_rate=learning_rate,
                    title="growing a component",
                    progress=progress,
                )
                # Checked once at the end, since each check waits for the device.
                if not all(bool(parameter.isfinite().all()) for parameter in parameters):
                    raise ValueError(
                        "parameters of the new component must stay finite, got NaN or infinity; "
                        "lower learning_rate or bound"
                    )
        except BaseException:  # an interrupt as well
            component.load_state_dict(before)
            raise
        self.active += 1

    def get_extra_state(self) -> Tensor:
        """Return the number of active components, for ``state_dict()``."""
        return torch.tensor(self.active)

    def set_extra_state(self, state: Tensor) -> None:
        """Set the number of active components, for ``load_state_dict()``."""
        self.active = int(state)

    def _mixture(self, x: Tensor) -> tuple[TorchDistributionMixin, Tensor]:
        """Return q(z | x), and the log of the sum of its unnormalised weights."""
        parts = [component(x) for component in self.components[: self.active]]
        normals, logits = zip(*parts, strict=True)
        if len(parts) == 1:
            return normals[0], logits[0]
        together = torch.stack(logits, -1)
        mixture = DiagonalNormalMixture(
            together,
            torch.stack([normal.base_dist.loc for normal in normals], -2),
            torch.stack([normal.base_dist.scale for normal in normals], -2),
        )
        return mixture, together.logsumexp(-1)

    @torch.no_grad()
    def _start_from(self, last: nn.Module, component: nn.Module) -> None:
        """Set a component's initial parameters from the last one, if shapes agree."""
        mine, theirs = component.state_dict(), last.state_dict()
        if {n: t.shape for n, t in mine.items()} != {n: t.shape for n, t in theirs.items()}:
            return
        if self.start == "trunk":
            heads = [name for name, part in last.named_modules() if isinstance(part, nn.Linear)]
            theirs |= {n: t for n, t in mine.items() if n.rpartition(".")[0] in heads[-1:]}
        component.load_state_dict(theirs)
        if self.start == "copy":
            for parameter in component.parameters():
                if parameter.dim() > 1:
                    noise = torch.randn_like(parameter)
                    parameter.add_(_DIFFERENCE * parameter.std(correction=0) * noise)
