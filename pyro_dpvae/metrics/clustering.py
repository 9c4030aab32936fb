"""What a model's own clusters are worth: read off q(y | x), by layer and jointly."""

import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pyro_dpvae.metrics.estimate import Estimate, Settings, share_estimate
from pyro_dpvae.metrics.representation import cluster_accuracy, cluster_information
from pyro_dpvae.nn.modes import in_evaluation

__all__ = ["assigned_clusters", "held_out_accuracy", "layer_clusters"]


def assigned_clusters(
    probabilities: Iterable[Sequence[Float[Tensor, "batch _"]]],
) -> Int[Tensor, "data layers"]:
    """Return the most probable cluster of each datum in each layer, on the CPU.

    Args:
        probabilities: of each batch, q(y_l | x) of each layer, of shape (batch, K_l), as
            ``cluster_probabilities`` gives them.

    Raises:
        ValueError: if there is no batch.

    Example:
        >>> batch = [torch.tensor([[0.2, 0.8]]), torch.tensor([[0.5, 0.1, 0.4]])]
        >>> assigned_clusters([batch, batch])
        tensor([[1, 0],
                [1, 0]])
    """
    with in_evaluation():
        found = [
            torch.stack([one.argmax(-1) for one in batch], -1).cpu() for batch in probabilities
        ]
    if not found:
        raise ValueError("clusters need data, got no batch; give at least one")
    return torch.cat(found)


def layer_clusters(
    train_clusters: Int[Tensor, "train layers"],
    train_labels: Int[Tensor, " train_labels"],
    test_clusters: Int[Tensor, "test layers"],
    test_labels: Int[Tensor, " test_labels"],
) -> dict[str, Estimate]:
    """Return what the clusters of each layer are worth, and those of several layers jointly.

    Jointly, a cluster is the tuple of a datum's clusters in all layers.

    Args:
        train_clusters: of each training datum and layer, bottom first.
        train_labels: of the training data, 0 or more.
        test_clusters: of each held-out datum and layer.
        test_labels: of the held-out data, 0 or more.

    Returns:
        ``cluster_accuracy_...``, as of :func:`held_out_accuracy`; of held-out data alone
        ``cluster_hungarian_...``, as of :func:`cluster_accuracy`, ``cluster_nmi_...``, the
        normalized mutual information, and ``clusters_used_...``, how many clusters they are in;
        of ``layer_1``, ..., ``layer_L`` and, of several layers, ``joint``.

    Raises:
        ValueError: if clusters and labels do not fit each other, or one is negative.

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
    """Return the share of held-out data whose cluster stands for their label.

    A cluster stands for the label most frequent in it among the training data; several clusters
    may stand for one label, and one without training data stands for none. So the value is no
    better for more clusters than data can tell apart, unlike that of a majority taken among the
    held-out data. The standard error is that of a share of these.

    Args:
        train_clusters: the cluster of each training datum.
        train_labels: of these, 0 or more.
        test_clusters: the cluster of each held-out datum.
        test_labels: of these, 0 or more.

    Raises:
        ValueError: if clusters and labels do not fit each other, or one is negative.

    References:
        The majority label of a cluster is what Willetts et al. and Falck et al. (2021),
        Multi-facet clustering variational autoencoders, give it; that the majority is of the
        training data is ours.

    Example:
        >>> clusters, labels = torch.tensor([0, 0, 0, 1]), torch.tensor([3, 3, 5, 5])
        >>> held_out_accuracy(clusters, labels, torch.tensor([0, 1, 2]), torch.tensor([3, 5, 5]))
        0.6667 +- 0.1870
    """
    for clusters, labels in ((train_clusters, train_labels), (test_clusters, test_labels)):
        if len(clusters) != len(labels) or len(labels) == 0:
            raise ValueError(
                f"every datum needs a cluster and a label, got {len(clusters)} and {len(labels)}"
            )
        least = int(min(clusters.min(), labels.min()))
        if least < 0:
            raise ValueError(
                f"clusters and labels count from 0, got {least}; leave out data without one"
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
