"""Requirements of metrics on a run, besides its checkpoint and any data."""

from collections.abc import Callable

from torch import Tensor

from pyro_dpvae.evaluation.subject import Subject
from pyro_dpvae.priors import AbstractPrior, ProductPrior
from pyro_dpvae.priors.product import layers_of

__all__ = [
    "CLASSES",
    "CLUSTERS",
    "FACTORS",
    "IMAGES",
    "IN_MEMORY",
    "LABELS",
    "LAYERS",
    "VECTORS",
    "Need",
]

Need = tuple[str, Callable[[Subject], bool]]
"""A requirement on a run: its name in messages, and whether a run meets it."""

IMAGES: Need = ("images", lambda subject: subject.data.is_images)
VECTORS: Need = (
    "vectors of data in memory",
    lambda subject: not subject.data.is_images and isinstance(subject.data.train, Tensor),
)
IN_MEMORY: Need = (
    "a training split in memory",
    lambda subject: isinstance(subject.data.train, Tensor),
)
LABELS: Need = (
    "labels of both splits",
    lambda subject: subject.data.train_labels is not None and subject.data.test_labels is not None,
)
CLASSES: Need = (
    "labels or factors of the training split",
    lambda subject: (
        subject.data.train_labels is not None or subject.data.train_factors is not None
    ),
)
FACTORS: Need = (
    "factors of variation (the array 'factors' of a .npz file)",
    lambda subject: subject.data.test_factors is not None,
)
LAYERS: Need = (
    "a model with a prior for each layer (a ladder)",
    lambda subject: isinstance(subject.prior, ProductPrior),
)
CLUSTERS: Need = (
    "a prior with clusters (mixture, or coupling over a mixture), in every layer of a ladder",
    lambda subject: _has_clusters(subject.prior),
)


def _has_clusters(prior: AbstractPrior) -> bool:
    try:
        for part in layers_of(prior):
            part.cluster_prior()
    except ValueError:
        return False
    return True
