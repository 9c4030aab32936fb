"""Fits to the data's representations between two steps: a mixture's next component, clusters."""

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.distributions.util import scale_and_mask
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.nn.functional import logsigmoid

from pyro_dpvae._bars import bar as progress_bar
from pyro_dpvae.encoders import ClusteringEncoder
from pyro_dpvae.priors import AbstractPrior, CouplingPrior, MixturePrior
from pyro_dpvae.sites import LATENT, PLATE

__all__ = [
    "Mixture",
    "Passes",
    "check_passes",
    "descend",
    "fit_logits",
    "gain",
    "log_joint",
    "mixture_of",
    "place_components",
    "skewed_log_ratio",
]

Passes = Callable[[int], Iterable[Tensor]] | Iterable[Tensor]
"""Batches of every epoch, or a function from the number of an epoch to its batches."""

Mixture = Callable[[Tensor], tuple[TorchDistributionMixin, Tensor]]
"""x -> Q(z | x), and the log of the sum of its unnormalised weights."""


_STARTS = 3
_LEAST_VARIANCE = 1e-3  # relative to the variance of all data


def descend(
    module: nn.Module,
    loss: Callable[[Tensor], Tensor],
    batches: Passes,
    *,
    steps: int,
    learning_rate: float,
    title: str,
    progress: bool,
) -> None:
    """Lower a loss of batches by steps of Adam on the parameters of a module."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    bar = progress_bar(
        total=steps, disable=not progress, unit="step", dynamic_ncols=True, leave=False
    )
    bar.set_description(title)
    try:
        with bar, torch.enable_grad():
            for x in itertools.islice(_epochs(batches), steps):
                # Not backward(), which would leave gradients on fixed parameters.
                gradients = torch.autograd.grad(loss(x), parameters, allow_unused=True)
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.grad = gradient
                optimizer.step()
                bar.update()
    finally:
        optimizer.zero_grad()


def gain(
    component: nn.Module,
    mixture: Mixture,
    model: Callable[..., Any],
    x: Tensor,
    *,
    bound: float,
) -> Float[Tensor, " batch"]:
    """Return, for each datum, a value with the gradient of the component's network to ascend."""
    with torch.no_grad():
        old, old_logit = mixture(x)
        z_old = old.sample()
        joint_old = log_joint(model, x, z_old)
    new, logit = component(x)
    z = new.rsample()
    joint, log_new, log_old = log_joint(model, x, z), new.log_prob(z), old.log_prob(z)
    criterion = joint - log_new + skewed_log_ratio(log_new, log_old, bound)

    # The bound of the grown mixture has the gradient w (1 - w) advantage in the log-odds of the
    # component's weight w. Dropping w (1 - w), the Fisher information of the log-odds, keeps the
    # gradient from vanishing near w = 0, where a component that starts far off is at first.
    log_odds = logit - old_logit
    with torch.no_grad():
        log_share, log_rest = logsigmoid(log_odds), logsigmoid(-log_odds)
        of_new = joint - torch.logaddexp(log_share + log_new, log_rest + log_old)
        log_new, log_old = new.log_prob(z_old), old.log_prob(z_old)
        of_old = joint_old - torch.logaddexp(log_share + log_new, log_rest + log_old)
        advantage = (of_new - of_old).clamp(-bound, bound)
    return criterion + log_odds * advantage


def skewed_log_ratio(log_new: Tensor, log_old: Tensor, bound: float) -> Tensor:
    """Return log q - log((1 - e) Q + e q) with e = exp(-bound), which is at most ``bound``.

    Its mean under q is the skewed divergence KL(q || (1 - e) Q + e q), from 0 (only for q = Q) to
    ``bound``. It is close to KL(q || Q) where this is far below the bound.

    Args:
        log_new: log q(z).
        log_old: log Q(z).
        bound: upper bound in nats, positive.

    Example:
        >>> log_new, log_old = torch.tensor([0.0, 0.0]), torch.tensor([-1.0, -1000.0])
        >>> skewed_log_ratio(log_new, log_old, 10.0)
        tensor([ 0.9999, 10.0000])
    """
    rest = math.log(-math.expm1(-bound))
    return log_new - torch.logaddexp(log_old + rest, log_new - bound)


def log_joint(model: Callable[..., Any], x: Tensor, z: Tensor) -> Float[Tensor, " batch"]:
    """Return log p(x, z) of each datum, for a model with the single latent site z."""
    trace = poutine.trace(poutine.condition(model, {LATENT: z})).get_trace(x)
    trace.compute_log_prob()
    sites = {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site_is_subsample(site)
    }
    others = sorted(name for name, site in sites.items() if not site["is_observed"])
    if others or LATENT not in sites:
        raise ValueError(
            f"the model of a growing mixture must have the single latent site {LATENT!r}, got "
            f"the sites {sorted(sites)}, with {others} in no guide; observe these sites, or write "
            "your own guide"
        )
    # Unscaled: a subsampling plate would scale the joint, but not log q(z | x).
    terms = {
        name: scale_and_mask(site["unscaled_log_prob"], 1.0, site["mask"])
        for name, site in sites.items()
    }
    outside = sorted(name for name, term in terms.items() if term.shape != (len(x),))
    if outside:
        raise ValueError(
            f"every site of a growing mixture's model must lie inside pyro.plate({PLATE!r}, batch "
            f"size) and no other plate, got {outside} elsewhere"
        )
    return torch.stack(list(terms.values())).sum(0)


def check_passes(batches: Any) -> None:
    """Raise for batches that can be iterated only once."""
    if callable(batches):
        return
    if (
        isinstance(batches, Tensor)
        or not isinstance(batches, Iterable)
        or iter(batches) is batches
    ):
        raise TypeError(
            "batches must be a list of tensors, or a function from the number of an epoch to "
            f"its batches, got {type(batches).__name__}; pass Batches(...).epoch, or a list"
        )


def _epochs(batches: Passes) -> Iterator[Tensor]:
    """Yield batches without end, epoch after epoch."""
    for number in itertools.count():
        empty = True
        for x in batches(number) if callable(batches) else batches:
            yield x
            empty = False
        if empty:
            raise ValueError(
                f"every epoch must have at least one batch, got none in epoch {number}; pass a "
                "list of tensors, or a function from the number of an epoch to its batches"
            )


def mixture_of(prior: AbstractPrior) -> MixturePrior:
    """Return the mixture whose components are a prior's clusters, in its generation space."""
    base = prior.base_prior if isinstance(prior, CouplingPrior) else prior
    if not isinstance(base, MixturePrior):
        raise ValueError(
            "clusters from data need components of a MixturePrior, or of a CouplingPrior over "
            f"one, got {type(base if base is not None else prior).__name__}; leave "
            "initialise_clusters out"
        )
    return base


def place_components(
    mixture: MixturePrior,
    means: Float[Tensor, "data latent"],
    draws: Float[Tensor, "data latent"],
    *,
    seed: int,
) -> None:
    """Move a mixture's components to k-means clusters of means of q(z | x), given samples too."""
    from sklearn.cluster import KMeans

    number = mixture.components
    found = KMeans(number, n_init=_STARTS, random_state=seed).fit(means.cpu().numpy())
    labels = torch.from_numpy(found.labels_.astype(np.int64)).to(means.device)
    centres = torch.from_numpy(found.cluster_centers_).to(means)
    counts = torch.bincount(labels, minlength=number).to(means)
    spread = torch.zeros_like(centres).index_add_(0, labels, (draws - centres[labels]).square())
    variance = spread / counts.clamp(min=1).unsqueeze(-1)
    least = _LEAST_VARIANCE * draws.var(0, correction=0) + torch.finfo(draws.dtype).tiny
    mixture.loc.copy_(centres)
    mixture.log_scale.copy_(torch.maximum(variance, least).log() / 2)
    if isinstance(mixture.logits, nn.Parameter):
        mixture.logits.copy_((counts + 1).log())


def fit_logits(
    encoder: ClusteringEncoder, priors: Sequence[AbstractPrior], batches: Passes, **options: Any
) -> None:
    """Fit an encoder's q(y_l | x) to p(y_l | z_l) at the means of z, and preserve its q(z | x).

    The options are those of :func:`descend`.
    """
    before = copy.deepcopy(encoder).eval()

    def loss(x: Tensor) -> Tensor:
        with torch.no_grad():
            old = before(x)[0]
            means = old.mean.split(encoder.latent_dims, -1)
            shares = [p.responsibilities(z) for p, z in zip(priors, means, strict=True)]
        new, logits = encoder(x)
        found = kl_divergence(old, new).mean()
        for share, logit in zip(shares, logits, strict=True):
            found = found - (share * logit.log_softmax(-1)).sum(-1).mean()
        return found

    descend(encoder, loss, batches, title="fitting q(y | x)", **options)
