"""Feature networks, which map images to vectors to compare sets of images."""

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
