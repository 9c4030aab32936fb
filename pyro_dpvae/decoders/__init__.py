"""Decoders: modules that map z to p(x | z)."""

from pyro_dpvae.decoders._base import AbstractDecoder, images
from pyro_dpvae.decoders.autoregressive import AutoregressiveDecoder
from pyro_dpvae.decoders.autoregressive_image import AutoregressiveImage
from pyro_dpvae.decoders.decoder import Decoder

__all__ = ["AbstractDecoder", "AutoregressiveDecoder", "AutoregressiveImage", "Decoder", "images"]
