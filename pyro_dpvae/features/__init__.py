"""Feature networks: images to vectors in which sets of images are compared."""

from pyro_dpvae.features.base import AbstractFeatures, extract
from pyro_dpvae.features.domain import DomainFeatures, train_domain_network
from pyro_dpvae.features.inception import InceptionFeatures

__all__ = [
    "AbstractFeatures",
    "DomainFeatures",
    "InceptionFeatures",
    "extract",
    "train_domain_network",
]
