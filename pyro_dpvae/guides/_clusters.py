"""Initialisation of mixture priors at clusters of the data's representations."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import kl_divergence

from pyro_dpvae._bars import bar as progress_bar
from pyro_dpvae._randomness import forked_rng
from pyro_dpvae.encoders import ClusteringEncoder
from pyro_dpvae.guides._growth import Passes, check_passes, descend, first_batches
from pyro_dpvae.nn.modes import in_evaluation
from pyro_dpvae.priors import AbstractPrior, CouplingPrior, MixturePrior
from pyro_dpvae.priors.product import layers_of

__all__ = ["fit_logits", "mixture_of", "start_clusters"]

_STARTS = 3
_LEAST_VARIANCE = 1e-3  # relative to the variance of all data


@torch.no_grad()
def start_clusters(
    guide: Any,
    prior: AbstractPrior,
    batches: Passes,
    *,
    seed: int,
) -> None:
    """Move the components of each layer's mixture to clusters, as ``initialise_clusters`` says."""
    check_passes(batches)
    layers = layers_of(prior)
    sizes = [part.latent_dim for part in layers]
    with in_evaluation(guide), forked_rng(seed):
        first = batches(0) if callable(batches) else batches
        pairs = [(q.mean, q.sample()) for q in map(guide.posterior, first)]
        guide.check_clusters(prior, sum(len(mean) for mean, _ in pairs))
        means, draws = (torch.cat(kind).split(sizes, -1) for kind in zip(*pairs, strict=True))
        for part, mean, draw in zip(layers, means, draws, strict=True):
            z0 = part.to_generation(mean)[0], part.to_generation(draw)[0]
            place_components(mixture_of(part), *z0, seed=seed)


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
    encoder: ClusteringEncoder,
    priors: Sequence[AbstractPrior],
    batches: Passes,
    *,
    steps: int,
    learning_rate: float,
    progress: bool,
) -> None:
    """Fit an encoder's q(y_l | x) to p(y_l | z_l) at the means of z, and preserve its q(z | x)."""
    parameters = [p for p in encoder.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    before = copy.deepcopy(encoder).eval()
    bar = progress_bar(
        total=steps, disable=not progress, unit="step", dynamic_ncols=True, leave=False
    )
    bar.set_description("fitting q(y | x)")
    with bar, torch.enable_grad():
        for x in first_batches(steps, batches):
            with torch.no_grad():
                old = before(x)[0]
                means = old.mean.split(encoder.latent_dims, -1)
                shares = [p.responsibilities(z) for p, z in zip(priors, means, strict=True)]
            new, logits = encoder(x)
            loss = kl_divergence(old, new).mean()
            for share, logit in zip(shares, logits, strict=True):
                loss = loss - (share * logit.log_softmax(-1)).sum(-1).mean()
            descend(loss, parameters, optimizer)
            bar.update()
