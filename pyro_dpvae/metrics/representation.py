"""What a representation is worth: how well labels can be read off it, and clusters found in it."""

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
    """Return the held-out accuracy of a logistic regression on the representations.

    Each coordinate is standardised; the regression is scikit-learn's, with its default penalty.
    The standard error is that of a share of the held-out data.

    Raises:
        ValueError: if representations and labels do not fit each other.

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

    Distances are Euclidean, in the units of z. The standard error is that of a share of the
    held-out data.

    Raises:
        ValueError: if representations and labels do not fit each other, or there are fewer
            training data than neighbours.
    """
    from sklearn.neighbors import KNeighborsClassifier

    if check_positive_int("neighbours", neighbours) > len(train):
        raise ValueError(f"neighbours must be at most the {len(train)} data, got {neighbours}")
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
    """Return how well labels can be read off each layer of a ladder's representations alone.

    Args:
        train: representations, the layers side by side.
        train_labels: of these.
        test: held-out representations.
        test_labels: of these.
        sizes: of the layers, bottom first.
        classifier: :func:`linear_probe_accuracy` or :func:`nearest_neighbour_accuracy`.

    Returns:
        The held-out accuracy from each layer, bottom first.

    Raises:
        ValueError: if the sizes do not add up to that of the representations, or representations
            and labels do not fit each other.

    References:
        Cui, Wu, Han (2023), Learning hierarchical features with joint latent space energy-based
        prior, for the measure; its classifier is not stated, these are ours.

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
                f"the sizes of the layers must add up to the {z.shape[-1]} coordinates of z, "
                f"got {sizes}"
            )
    layers = zip(train.split(sizes, -1), test.split(sizes, -1), strict=True)
    return [classifier(low, train_labels, high, test_labels) for low, high in layers]


def k_means(z: Float[Tensor, "data latent"], clusters: int, *, seed: int = 0) -> Tensor:
    """Return the cluster of each representation by k-means, the best of ten starts."""
    from sklearn.cluster import KMeans

    if check_positive_int("clusters", clusters) > len(z):
        raise ValueError(f"clusters must be at most the {len(z)} data, got {clusters}")
    found = KMeans(clusters, n_init=10, random_state=seed).fit_predict(_numpy(z))
    return torch.from_numpy(found.astype(np.int64))


def cluster_accuracy(
    clusters: Int[Tensor, " data"], labels: Int[Tensor, " rows"], *, matching: str = "hungarian"
) -> Estimate:
    """Return the share of data whose cluster stands for their label.

    ``hungarian`` gives each cluster a label of its own, the best such matching; ``majority``
    gives each the label most frequent in it, several clusters the same one if need be.

    Raises:
        ValueError: if the two differ in size, or for an unknown matching.

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
    """Return the normalized mutual information of clusters and labels, in [0, 1].

    It is I / mean(H(clusters), H(labels)); its standard error is from resampled data.

    Raises:
        ValueError: if the two differ in size.
    """
    from sklearn.metrics import normalized_mutual_info_score

    _contingency(clusters, labels)
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


def _accuracy(
    classifier: Any,
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    settings: Settings,
) -> Estimate:
    for z, labels in ((train, train_labels), (test, test_labels)):
        if len(z) != len(labels) or len(z) == 0:
            raise ValueError(f"every representation needs a label, got {len(z)} and {len(labels)}")
    if len(train_labels.unique()) < 2:
        raise ValueError("a classifier needs at least two classes, got one")
    classifier.fit(_numpy(train), _numpy(train_labels))
    hits = int((classifier.predict(_numpy(test)) == _numpy(test_labels)).sum())
    return share_estimate(hits, len(test), {**settings, "test": len(test)})


def _contingency(clusters: Tensor, labels: Tensor) -> NDArray[np.int64]:
    if clusters.shape != labels.shape or clusters.dim() != 1 or len(labels) == 0:
        raise ValueError(
            "every datum needs a cluster and a label, got shapes "
            f"{tuple(clusters.shape)} and {tuple(labels.shape)}"
        )
    rows = np.unique(_numpy(clusters), return_inverse=True)[1]
    columns = np.unique(_numpy(labels), return_inverse=True)[1]
    table = np.zeros((rows.max() + 1, columns.max() + 1), np.int64)
    np.add.at(table, (rows, columns), 1)
    return table


def _numpy(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().cpu().numpy()
