"""Groups of metrics that compare representations with labels and factors of variation."""

import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import pyro_dpvae.metrics as metrics
from pyro_dpvae._ranks import map_over_ranks
from pyro_dpvae._subsets import spread
from pyro_dpvae.data import own_batches
from pyro_dpvae.errors import EvaluationWarning
from pyro_dpvae.evaluation.subject import Subject
from pyro_dpvae.guides import ClusteringLadderGuide
from pyro_dpvae.metrics.estimate import Estimate
from pyro_dpvae.mixture import posterior_means
from pyro_dpvae.priors import ProductPrior
from pyro_dpvae.priors.product import layers_of

__all__ = ["clusters", "disentanglement", "labelled", "layers", "own_clusters", "probe"]

_PROBE_DATA = 10_000
_CLASSIFIERS = {
    "probe": metrics.linear_probe_accuracy,
    "nearest_neighbours": metrics.nearest_neighbour_accuracy,
}

Estimates = dict[str, Estimate]


def probe(subject: Subject) -> Estimates:
    """Measure how well classifiers predict labels from the means of q(z | x)."""
    data = labelled(subject)
    return {name: classifier(*data) for name, classifier in _CLASSIFIERS.items()}


def layers(subject: Subject) -> Estimates:
    """Measure how well classifiers predict labels from each layer of a ladder alone."""
    assert isinstance(subject.prior, ProductPrior)
    data, sizes = labelled(subject), subject.prior.latent_dims
    return {
        f"{name}_layer_{layer}": found
        for name, classifier in _CLASSIFIERS.items()
        for layer, found in enumerate(
            metrics.layer_accuracies(*data, sizes=sizes, classifier=classifier), 1
        )
    }


def labelled(subject: Subject) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return means and labels of evenly spaced training data, and of the held-out data.

    If the splits have no class in common, as in Omniglot, the first pair is every second item of
    each class of the held-out split, and the second pair is the rest of that split.
    """
    train_labels, test_labels = subject.data.train_labels, subject.data.test_labels
    assert train_labels is not None
    assert test_labels is not None
    if not torch.isin(test_labels, train_labels).any():
        by_class = test_labels.argsort(stable=True)
        fitted, tested = by_class[::2], by_class[1::2]
        means = subject.test_means
        return means[fitted], test_labels[fitted], means[tested], test_labels[tested]
    labels = spread(train_labels, _PROBE_DATA)
    return subject.train_means(_PROBE_DATA), labels, subject.test_means, test_labels


def clusters(subject: Subject) -> Estimates:
    """Measure how well k-means clusters of the means match the labels."""
    labels = subject.data.test_labels
    assert labels is not None
    found = metrics.k_means(subject.test_means, len(labels.unique()), seed=subject.config.seed)
    return {
        "cluster_accuracy": metrics.cluster_accuracy(found, labels),
        "cluster_majority": metrics.cluster_accuracy(found, labels, matching="majority"),
        "cluster_nmi": metrics.cluster_information(found, labels),
    }


def own_clusters(subject: Subject) -> Estimates:
    """Return how well the clusters of the prior, in a ladder of each layer's, fit the labels."""

    def assigned(x: Tensor) -> Tensor:
        with torch.no_grad():
            return metrics.assigned_clusters([_cluster_probabilities(subject, x)])

    train, test = (
        torch.cat(map_over_ranks(assigned, own_batches(batches)))
        for batches in (subject.saved.batches(subject.data.train), subject.test)
    )
    labels = subject.data.train_labels, subject.data.test_labels
    assert labels[0] is not None
    assert labels[1] is not None
    if not torch.isin(labels[1], labels[0]).any():
        raise ValueError(
            "clusters get their labels from the training split, and the splits of "
            f"{subject.data.name!r} have no class in common; measure 'clusters' and 'probe', "
            "which use held-out data only"
        )
    return metrics.layer_clusters(train, labels[0], test, labels[1])


def _cluster_probabilities(subject: Subject, x: Tensor) -> list[Tensor]:
    """Return q(y | x) of each layer: the guide's own, or p(y | z) at the mean of q(z | x)."""
    guide, prior = subject.guide, subject.prior
    if isinstance(guide, ClusteringLadderGuide):
        return guide.cluster_probabilities(x)
    layers = layers_of(prior)
    means = posterior_means(guide.posterior, x).split([part.latent_dim for part in layers], -1)
    return [part.responsibilities(z) for part, z in zip(layers, means, strict=True)]


def disentanglement(subject: Subject) -> Estimates:
    """Measure how coordinates of the means correspond to factors of variation."""
    factors = subject.data.test_factors
    assert factors is not None
    if constant := metrics.constant_factors(factors):
        warnings.warn(
            f"factors that do not vary are left out, got one value in columns {constant} of the "
            f"held-out factors of {subject.data.name!r}",
            category=EvaluationWarning,
            stacklevel=2,
        )
    variance = subject.aggregate.scale.square().mean(0)
    scores: dict[str, Callable[[Tensor, Tensor], Estimate | dict[str, Estimate]]] = {
        **metrics.DISENTANGLEMENT,
        "factor-vae-score": partial(metrics.factor_vae_score, posterior_variance=variance),
    }
    found: Estimates = {}
    for name, score in scores.items():
        try:
            result = score(subject.test_means, factors)
        except ValueError as error:
            warnings.warn(f"{name} is skipped: {error}", category=EvaluationWarning, stacklevel=2)
            continue
        if isinstance(result, Estimate):
            found[name.replace("-", "_")] = result
        else:
            found.update({f"{name}_{part}": estimate for part, estimate in result.items()})
    return found
