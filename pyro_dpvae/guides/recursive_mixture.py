"""The recursive mixture: q(z | x) is a mixture of encoders that grows one component at a time."""

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_dpvae._checks import check_choice, check_positive, check_positive_int
from pyro_dpvae.distributions import DiagonalNormalMixture
from pyro_dpvae.encoders import WeightedGaussianEncoder
from pyro_dpvae.guides._base import AbstractGuide
from pyro_dpvae.guides._growth import Passes, fit_component
from pyro_dpvae.nn.modes import in_evaluation

__all__ = ["RecursiveMixtureGuide"]

_DIFFERENCE = 0.1  # between a copy's weights and the copied ones, in their standard deviations


@final
class RecursiveMixtureGuide(AbstractGuide):
    """The guide q(z | x) = sum_m a_m(x) N(z; mu_m(x), diag sigma_m^2(x)), of components that grow.

    Each component m is an encoder with a network of its own, made in advance; the first
    ``active`` of them make up the mixture. The weights a(x) are the softmax of their logits. One
    pass through the active networks gives q(z | x), with nothing iterated at test time.

    Under this library's objectives a component learns as fast as it would alone, whatever its
    weight: the gradient that reaches mu_m(x) and sigma_m(x) through z is divided by M a_m(x), for
    M active components. This is the natural gradient, since a_m(x) is the factor of component m in
    the Fisher information of (m, z). Under the plain gradient the component with the larger
    weight learns faster, gains more weight, and soon is the only one.

    :meth:`grow` fits the next component with all else as it stands and takes it into the mixture;
    steps of SVI then train all active components, their weights and the model together. With
    ``active=len(encoders)`` from the start there is nothing to grow: that is the plain mixture of
    the same size, which recursive ones are compared with.

    The number of active components is part of the state that ``state_dict()`` returns.

    Args:
        encoders: the components, of one latent size, which share no parameter.
        active: how many of them are in the mixture at first.
        start: from what a new component starts, where it has parameters of the same names and
            shapes as the last active one; otherwise it starts from its own. ``copy``: from the
            last one, with noise of a tenth of their standard deviation on the weights of each
            layer. It is as good an encoder at once, and the two then part: for posteriors of one
            mode, which one encoder does not meet well for every datum. ``trunk``: from all layers
            of the last one but the last linear layer, so that it starts far from it and finds
            other modes of posteriors that have several.

    Attributes:
        components: all components, active or not.

    Raises:
        ValueError: if there is no encoder, latent sizes differ, parameters are shared, or
            ``active`` is not between 1 and their number; on loading, for the last reason.

    References:
        Kim, Pavlovic (2020), Recursive Inference for Variational Autoencoders: a mixture of
        encoders that grows by one component at a time, for which the bound on the likelihood and
        the divergence from the mixture so far are raised together. The forms of the bounded
        divergence, of the weights and of a component's start are our own reading. Lin, Khan,
        Schmidt (2019), Fast and simple natural-gradient variational inference with mixture of
        exponential-family approximations, for the Fisher information of a mixture with its index.

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
            raise ValueError("a mixture needs at least one encoder, got none")
        sizes = [encoder.latent_dim for encoder in encoders]
        if len(set(sizes)) > 1:
            raise ValueError(f"the encoders of a mixture must agree on latent_dim, got {sizes}")
        parameters = [p for encoder in encoders for p in encoder.parameters()]
        if len({id(p) for p in parameters}) < len(parameters):
            raise ValueError(
                "each component must have a network of its own, got encoders that share "
                "parameters, which would move the mixture as it grows; build a network for each"
            )
        super().__init__()
        self.components = nn.ModuleList(encoders)
        self.active, self.start = active, start

    @property
    def num_components(self) -> int:
        """How many components there are, active or not."""
        return len(self.components)

    @property
    def active(self) -> int:
        """How many components are in the mixture."""
        return self._active

    @active.setter
    def active(self, number: int) -> None:
        if not 1 <= number <= self.num_components:
            raise ValueError(
                f"active must be between 1 and the {self.num_components} components, got {number}"
            )
        self._active = number

    def posterior(self, x: Tensor) -> TorchDistributionMixin:
        """Return q(z | x), for x of shape (batch, *data): with one component, its normals."""
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
        """Fit the next component, while all else stands, and take it into the mixture.

        With Q the mixture so far and q the component, Adam maximises over q, averaged over data,

            E_q[log p(x, z) - log q(z | x)] + KL(q || (1 - e) Q + e q),    e = exp(-bound):

        its own bound on log p(x), and how far it is from what the mixture covers. With KL(q || Q)
        as the divergence the sum is E_q[log p(x, z) - log Q(z | x)], along which a small share of
        q lowers KL(Q' || p(z | x)) of Q' = (1 - share) Q + share q fastest; but that KL has no
        bound, so q could leave the posterior for wherever Q vanishes. The skewed divergence here
        is at most ``bound``, with gradients that vanish as it is reached: there the component
        raises its own bound alone.

        The component starts as ``start`` of the guide says. At an exact copy the divergence and
        its gradient are zero.

        The weight's logit is fitted meanwhile: it maximises the bound of the grown mixture on
        log p(x), with a draw from the component and one from the mixture, and no gradient from
        there to means and variances. So a component of little use comes in with little weight.

        Parameters of the model and of the active components stay what they are, gradients
        included; modules, of which the model may be one, are in evaluation mode meanwhile. Scales
        of the model's sites count for nothing. The component and ``active`` are as before if
        growing fails or is interrupted.

        Args:
            model: p(x, z), any Pyro model of the one latent site ``"z"`` that takes a batch.
            batches: tensors of shape (batch, *data), taken pass after pass; or a function from
                the number of a pass to such tensors, as ``Batches.epoch`` is.
            steps: the number of steps of Adam.
            learning_rate: of Adam.
            bound: on the divergence, in nats.
            progress: whether a bar is shown.

        Raises:
            TypeError: if ``batches`` cannot be passed through again, as an iterator cannot.
            ValueError: if all components are active, an option is not positive, a pass has no
                batch, the model has other latent sites, or the component diverges.

        References:
            Kim, Pavlovic (2020), Recursive Inference for Variational Autoencoders, for the two
            halves of the criterion. The derivation above, the form of the bound and the weight's
            fit are our own reading.

        Example:
            >>> from pyro_dpvae.decoders import Decoder
            >>> from pyro_dpvae.likelihoods import GaussianLikelihood
            >>> from pyro_dpvae.nn import ARCHITECTURES
            >>> from pyro_dpvae.priors import StandardNormal
            >>> from pyro import plate, sample
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
                "a mixture grows to the number of its encoders, and all "
                f"{self.active} are active; build the guide with more encoders"
            )
        check_positive_int("steps", steps)
        for name, value in (("learning_rate", learning_rate), ("bound", bound)):
            check_positive(name, value)
        component, last = self.components[self.active], self.components[self.active - 1]
        training = component.training
        before = {name: tensor.clone() for name, tensor in component.state_dict().items()}
        try:
            with in_evaluation(self, model, others=False):  # but for the one that learns
                component.train(training)
                self._start_from(last, component)
                fit_component(
                    component,
                    self._mixture,
                    model,
                    batches,
                    steps=steps,
                    learning_rate=learning_rate,
                    bound=bound,
                    progress=progress,
                )
        except BaseException:  # an interrupt as well
            component.load_state_dict(before)
            raise
        self.active += 1

    def get_extra_state(self) -> Tensor:
        """Return the number of active components, for ``state_dict()``."""
        return torch.tensor(self.active)

    def set_extra_state(self, state: Tensor) -> None:
        """Take on the number of active components, from ``load_state_dict()``."""
        self.active = int(state)

    def _mixture(self, x: Tensor) -> tuple[TorchDistributionMixin, Tensor]:
        """Return q(z | x), and the log of the sum of its weights as they are unnormalised."""
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
        """Give a component what it starts from, if the last one has the same shapes."""
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
