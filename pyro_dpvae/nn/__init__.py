"""Networks: tensors in, tensors out, without distributions."""

from pyro_dpvae.nn.activations import ACTIVATIONS, has_kinks
from pyro_dpvae.nn.architectures import (
    ARCHITECTURES,
    LADDERS,
    PIXEL_NETWORKS,
    Architecture,
    default_architecture,
    default_ladder,
)
from pyro_dpvae.nn.batched import Batched, at_least_float32, measured, with_head
from pyro_dpvae.nn.conditioned import ConditionedPerceptron, autoregressive_masks
from pyro_dpvae.nn.gated_pixels import GatedPixelNetwork, LocalPixelNetwork
from pyro_dpvae.nn.images import ImageLayers, UnflattenImage
from pyro_dpvae.nn.ladder import check_latent_dims, check_wiring
from pyro_dpvae.nn.masked_pixels import MaskedPixelNetwork
from pyro_dpvae.nn.pixelwise import AbstractPixelNetwork, AbstractPixelSampler
from pyro_dpvae.nn.weight_norm import has_weight_norm, normalize_weights, started_from_data

__all__ = [
    "ACTIVATIONS",
    "ARCHITECTURES",
    "LADDERS",
    "PIXEL_NETWORKS",
    "AbstractPixelNetwork",
    "AbstractPixelSampler",
    "Architecture",
    "Batched",
    "ConditionedPerceptron",
    "GatedPixelNetwork",
    "ImageLayers",
    "LocalPixelNetwork",
    "MaskedPixelNetwork",
    "UnflattenImage",
    "at_least_float32",
    "autoregressive_masks",
    "check_latent_dims",
    "check_wiring",
    "default_architecture",
    "default_ladder",
    "has_kinks",
    "has_weight_norm",
    "measured",
    "normalize_weights",
    "started_from_data",
    "with_head",
]
