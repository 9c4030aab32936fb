"""Clusters that a model finds by itself, from q(y | x), compared with labels."""

import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pyro_dpvae.metrics.estimate import Estimate, Settings, share_estimate
from pyro_dpvae.metrics.representation import (
    check_labels,
    cluster_accuracy,
    cluster_information,
)
from pyro_dpvae.nn.modes import in_evaluation

__all__ = ["assigned_clusters", "held_out_accuracy", "layer_clusters"]


def assigned_clusters(
    probabilities: Iterable[Sequence[Float[Tensor, "batch _"]]],
) -> Int[Tensor, "data layers"]:
    """Return the most probable cluster of each datum in each layer, on the CPU.

    Args:
        probabilities: for each batch, q(y_l | x) of every layer, of shape (batch, K_l), from
            ``cluster_probabilities``.

    Raises:
        ValueError: if there is no batch.

    Example:
        >>> batch = [torch.tensor([[0.2, 0.8]]), torch.tensor([[0.5, 0.1, 0.4]])]
        >>> assigned_clusters([batch])
        tensor([[1, 0]])
    """
    with in_evaluation():
        found = [torch.stack([q.argmax(-1) for q in batch], -1).cpu() for batch in probabilities]
    if not found:
        raise ValueError("probabilities must have at least one batch, got none")
    return torch.cat(found)


def layer_clusters(
    train_clusters: Int[Tensor, "train layers"],
    train_labels: Int[Tensor, " train_labels"],
    test_clusters: Int[Tensor, "test layers"],
    test_labels: Int[Tensor, " test_labels"],
) -> dict[str, Estimate]:
    """Return metrics of the clusters of each layer and, with several layers, of all jointly.

    The joint cluster of a datum is the tuple of its clusters in all layers.

    Args:
        train_clusters: the cluster of each training datum in each layer, bottom first.
        train_labels: the labels of the training data, 0 or more.
        test_clusters: the cluster of each held-out datum in each layer.
        test_labels: the labels of the held-out data, 0 or more.

    Returns:
        For ``layer_1``, ..., ``layer_L`` and ``joint``: ``cluster_accuracy_...`` from
        :func:`held_out_accuracy`, and of the held-out data alone ``cluster_hungarian_...`` from
        :func:`cluster_accuracy`, ``cluster_nmi_...`` from :func:`cluster_information`, and
        ``clusters_used_...``, the number of clusters with data.

    Raises:
        ValueError: if a datum has no label, or a cluster or label is negative.

    Example:
        >>> clusters = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
        >>> found = layer_clusters(clusters, torch.arange(4), clusters, torch.arange(4))
        >>> {name: one.value for name, one in found.items() if "accuracy" in name}
        {'cluster_accuracy_layer_1': 0.5, ...2': 0.5, 'cluster_accuracy_joint': 1.0}
    """
    layers = zip(train_clusters.unbind(-1), test_clusters.unbind(-1), strict=True)
    named = {f"layer_{number}": pair for number, pair in enumerate(layers, 1)}
    if len(named) > 1:
        both = torch.cat([train_clusters, test_clusters])
        tuples = torch.unique(both, dim=0, return_inverse=True)[1]
        named["joint"] = (tuples[: len(train_clusters)], tuples[len(train_clusters) :])
    found = {}
    for name, (train, test) in named.items():
        found[f"cluster_accuracy_{name}"] = held_out_accuracy(
            train, train_labels, test, test_labels
        )
        found[f"cluster_hungarian_{name}"] = cluster_accuracy(test, test_labels)
        found[f"cluster_nmi_{name}"] = cluster_information(test, test_labels)
        used, settings = float(len(test.unique())), {"data": len(test)}
        found[f"clusters_used_{name}"] = Estimate(used, math.nan, settings)
    return found


def held_out_accuracy(
    train_clusters: Int[Tensor, " train"],
    train_labels: Int[Tensor, " train_labels"],
    test_clusters: Int[Tensor, " test"],
    test_labels: Int[Tensor, " test_labels"],
) -> Estimate:
    """Return the share of held-out data whose cluster predicts their label.

    A cluster predicts the most frequent label of its training data; one without training data
    predicts none. Unlike a majority among the held-out data, this does not grow with the number of
    clusters.

    Args:
        train_clusters: the cluster of each training datum.
        train_labels: the labels of the training data, 0 or more.
        test_clusters: the cluster of each held-out datum.
        test_labels: the labels of the held-out data, 0 or more.

    Returns:
        The accuracy, with the standard error of a share of the held-out data.

    Raises:
        ValueError: if a datum has no label, or a cluster or label is negative.

    References:
        Willetts et al. and Falck et al. (2021), Multi-facet clustering variational autoencoders,
        for the majority label; its training data are our choice.

    Example:
        >>> clusters, labels = torch.tensor([0, 0, 0, 1]), torch.tensor([3, 3, 5, 5])
        >>> held_out_accuracy(clusters, labels, torch.tensor([0, 1, 2]), torch.tensor([3, 5, 5]))
        0.6667 +- 0.1870
    """
    for clusters, labels in ((train_clusters, train_labels), (test_clusters, test_labels)):
        check_labels("clusters", clusters, labels)
        least = int(min(clusters.min(), labels.min()))
        if least < 0:
            raise ValueError(
                f"clusters and labels must count from 0, got {least}; leave out data without them"
            )
    number = 1 + int(max(train_clusters.max(), test_clusters.max()))
    votes = torch.zeros(number, 1 + int(train_labels.max()), dtype=torch.long)
    votes.index_put_(
        (train_clusters, train_labels), torch.ones_like(train_labels), accumulate=True
    )
    majority = torch.where(votes.sum(-1) > 0, votes.argmax(-1), -1)
    hits = int((majority[test_clusters] == test_labels).sum())
    settings: Settings = {
        "train": len(train_labels),
        "test": len(test_labels),
        "clusters": len(test_clusters.unique()),
        "matching": "majority of the training data",
    }
    return share_estimate(hits, len(test_labels), settings)
