"""Networks: tensors in, tensors out; nothing here knows of distributions."""

from pyro_dpvae.nn.architectures import ARCHITECTURES, Architecture, default_architecture
from pyro_dpvae.nn.batched import Batched, at_least_float32
from pyro_dpvae.nn.conditioned import ConditionedPerceptron, autoregressive_masks
from pyro_dpvae.nn.pixels import AbstractPixelNetwork, AbstractPixelSampler

__all__ = [
    "ARCHITECTURES",
    "AbstractPixelNetwork",
    "AbstractPixelSampler",
    "Architecture",
    "Batched",
    "ConditionedPerceptron",
    "at_least_float32",
    "autoregressive_masks",
    "default_architecture",
]
