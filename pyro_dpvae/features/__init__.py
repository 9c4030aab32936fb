"""Feature networks, which map images to vectors to compare sets of images."""

from pyro_dpvae.features.base import AbstractFeatures, InceptionFeatures, extract
from pyro_dpvae.features.domain import DomainFeatures, train_domain_network

__all__ = [
    "AbstractFeatures",
    "DomainFeatures",
    "InceptionFeatures",
    "extract",
    "train_domain_network",
]
