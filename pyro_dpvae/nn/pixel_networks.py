"""The autoregressive pixel networks by name."""

from collections.abc import Callable

from pyro_dpvae.nn.gated_pixels import GatedPixelNetwork
from pyro_dpvae.nn.local_pixels import LocalPixelNetwork
from pyro_dpvae.nn.masked_pixels import MaskedPixelNetwork
from pyro_dpvae.nn.pixels import AbstractPixelNetwork

__all__ = ["PIXEL_NETWORKS"]

PIXEL_NETWORKS: dict[str, Callable[..., AbstractPixelNetwork]] = {
    "gated": GatedPixelNetwork,
    "local": LocalPixelNetwork,
    "masked": MaskedPixelNetwork,
}
"""The pixel networks by name."""
