"""Labels predicted from z, and clusters of z or of a model compared with labels."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from pyro_dpvae._checks import check_choice, check_positive_int
from pyro_dpvae.metrics.estimate import Estimate, Settings, share_estimate
from pyro_dpvae.nn.modes import in_evaluation

__all__ = [
    "assigned_clusters",
    "check_labels",
    "cluster_accuracy",
    "cluster_information",
    "held_out_accuracy",
    "k_means",
    "layer_accuracies",
    "layer_clusters",
    "linear_probe_accuracy",
    "nearest_neighbour_accuracy",
]


def linear_probe_accuracy(
    train: Float[Tensor, "train latent"],
    train_labels: Int[Tensor, " train_labels"],
    test: Float[Tensor, "test latent"],
    test_labels: Int[Tensor, " test_labels"],
) -> Estimate:
    """Return the held-out accuracy of a logistic regression on standardised representations.

    The regression is scikit-learn's, with its default penalty. The standard error is that of a
    share of the held-out data.

    Raises:
        ValueError: if a representation has no label, or there is only one class.

    Example:
        >>> z = torch.cat([torch.randn(50, 2) - 4, torch.randn(50, 2) + 4])
        >>> labels = torch.arange(100) // 50
        >>> linear_probe_accuracy(z, labels, z, labels).value
        1.0
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    settings: Settings = {"classifier": "logistic regression, standardised", "train": len(train)}
    return _accuracy(probe, train, train_labels, test, test_labels, settings)


def nearest_neighbour_accuracy(
    train: Float[Tensor, "train latent"],
    train_labels: Int[Tensor, " train_labels"],
    test: Float[Tensor, "test latent"],
    test_labels: Int[Tensor, " test_labels"],
    *,
    neighbours: int = 10,
) -> Estimate:
    """Return the held-out accuracy of a vote of the nearest training representations.

    Distances are Euclidean. The standard error is that of a share of the held-out data.

    Raises:
        ValueError: as :func:`linear_probe_accuracy`, or with more neighbours than training data.
    """
    from sklearn.neighbors import KNeighborsClassifier

    if check_positive_int("neighbours", neighbours) > len(train):
        raise ValueError(f"neighbours must be at most {len(train)} (all data), got {neighbours}")
    classifier = KNeighborsClassifier(neighbours)
    settings: Settings = {"neighbours": neighbours, "train": len(train)}
    return _accuracy(classifier, train, train_labels, test, test_labels, settings)


def layer_accuracies(
    train: Float[Tensor, "train latent"],
    train_labels: Int[Tensor, " train_labels"],
    test: Float[Tensor, "test latent"],
    test_labels: Int[Tensor, " test_labels"],
    *,
    sizes: Sequence[int],
    classifier: Callable[..., Estimate] = linear_probe_accuracy,
) -> list[Estimate]:
    """Return the held-out accuracy of a classifier on each layer of z, bottom first.

    Args:
        train: training representations, the layers side by side.
        train_labels: their labels.
        test: held-out representations.
        test_labels: their labels.
        sizes: the sizes of the layers, bottom first.
        classifier: :func:`linear_probe_accuracy` or :func:`nearest_neighbour_accuracy`.

    Raises:
        ValueError: if the sizes do not add up to that of z, or from the classifier.

    References:
        Cui, Wu, Han (2023), Learning hierarchical features with joint latent space energy-based
        prior, for the measure; they do not state their classifier.

    Example:
        >>> z = torch.cat([torch.randn(50, 2) - 4, torch.randn(50, 2) + 4])
        >>> z, labels = torch.cat([torch.zeros(100, 1), z], 1), torch.arange(100) // 50
        >>> [found.value for found in layer_accuracies(z, labels, z, labels, sizes=(1, 2))]
        [0.5, 1.0]
    """
    sizes = tuple(sizes)
    for z in (train, test):
        if z.shape[-1] != sum(sizes):
            raise ValueError(
                f"sizes must add up to the {z.shape[-1]} coordinates of z, got {sizes}"
            )
    layers = zip(train.split(sizes, -1), test.split(sizes, -1), strict=True)
    return [classifier(low, train_labels, high, test_labels) for low, high in layers]


def k_means(z: Float[Tensor, "data latent"], clusters: int, *, seed: int = 0) -> Tensor:
    """Return the cluster of each representation by k-means, the best of ten starts."""
    from sklearn.cluster import KMeans

    if check_positive_int("clusters", clusters) > len(z):
        raise ValueError(f"clusters must be at most {len(z)} (all data), got {clusters}")
    found = KMeans(clusters, n_init=10, random_state=seed).fit_predict(_numpy(z))
    return torch.from_numpy(found.astype(np.int64))


def cluster_accuracy(
    clusters: Int[Tensor, " data"], labels: Int[Tensor, " rows"], *, matching: str = "hungarian"
) -> Estimate:
    """Return the share of data whose cluster is matched with their label.

    ``hungarian`` matches each cluster with a label of its own, as well as possible; ``majority``
    matches it with the most frequent label in it.

    Raises:
        ValueError: if a cluster has no label, or for an unknown matching.

    References:
        Kuhn (1955), The Hungarian method for the assignment problem.

    Example:
        >>> clusters, labels = torch.tensor([0, 0, 1, 1]), torch.tensor([1, 1, 0, 1])
        >>> cluster_accuracy(clusters, labels).value
        0.75
    """
    from sklearn.metrics.cluster import contingency_matrix

    check_choice("matching", matching, ("hungarian", "majority"))
    check_labels("clusters", clusters, labels)
    table = contingency_matrix(_numpy(clusters), _numpy(labels))
    if matching == "hungarian":
        from scipy.optimize import linear_sum_assignment

        rows, columns = linear_sum_assignment(table, maximize=True)
        hits = table[rows, columns].sum()
    else:
        hits = table.max(1).sum()
    settings: Settings = {"data": len(labels), "clusters": len(table), "matching": matching}
    return share_estimate(int(hits), len(labels), settings)


def cluster_information(
    clusters: Int[Tensor, " data"], labels: Int[Tensor, " rows"], *, resamples: int = 100
) -> Estimate:
    """Return the normalized mutual information, I / mean(H(clusters), H(labels)), in [0, 1].

    The standard error is that of bootstrap samples of the data.

    Raises:
        ValueError: if a cluster has no label.
    """
    from sklearn.metrics import normalized_mutual_info_score

    check_labels("clusters", clusters, labels)
    a, b = _numpy(clusters), _numpy(labels)
    generator = np.random.default_rng(0)
    found = []
    for _ in range(resamples):
        chosen = generator.integers(len(a), size=len(a))
        found.append(normalized_mutual_info_score(a[chosen], b[chosen]))
    value = float(normalized_mutual_info_score(a, b))
    settings: Settings = {
        "data": len(a),
        "normalization": "arithmetic mean",
        "resamples": resamples,
    }
    return Estimate(value, float(np.std(found, ddof=1)), settings)


def check_labels(name: str, items: Tensor, labels: Tensor) -> None:
    """Raise unless there are items, each with a label."""
    if len(labels) == 0 or labels.shape != items.shape[:1]:
        raise ValueError(
            f"{name} must have a label each, got {len(items)} of them and labels of shape "
            f"{tuple(labels.shape)}"
        )


def _accuracy(
    classifier: Any,
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    settings: Settings,
) -> Estimate:
    for z, labels in ((train, train_labels), (test, test_labels)):
        check_labels("representations", z, labels)
    if len(train_labels.unique()) < 2:
        raise ValueError("train_labels must have at least two classes, got one")
    classifier.fit(_numpy(train), _numpy(train_labels))
    hits = int((classifier.predict(_numpy(test)) == _numpy(test_labels)).sum())
    return share_estimate(hits, len(test), {**settings, "test": len(test)})


def _numpy(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().cpu().numpy()


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
