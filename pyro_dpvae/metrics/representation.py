"""Accuracy of labels predicted from z, and of k-means clusters of z."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from pyro_dpvae._checks import check_choice, check_positive_int
from pyro_dpvae.metrics.estimate import Estimate, Settings, share_estimate

__all__ = [
    "check_labels",
    "cluster_accuracy",
    "cluster_information",
    "k_means",
    "layer_accuracies",
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
    check_choice("matching", matching, ("hungarian", "majority"))
    table = _contingency(clusters, labels)
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


def _contingency(clusters: Tensor, labels: Tensor) -> NDArray[np.int64]:
    check_labels("clusters", clusters, labels)
    rows = np.unique(_numpy(clusters), return_inverse=True)[1]
    columns = np.unique(_numpy(labels), return_inverse=True)[1]
    table = np.zeros((rows.max() + 1, columns.max() + 1), np.int64)
    np.add.at(table, (rows, columns), 1)
    return table


def _numpy(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().cpu().numpy()
