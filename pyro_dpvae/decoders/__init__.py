"""Decoders: modules that map z to p(x | z)."""

from pyro_dpvae.decoders.autoregressive import AutoregressiveDecoder, AutoregressiveImage
from pyro_dpvae.decoders.decoder import AbstractDecoder, Decoder, images

__all__ = ["AbstractDecoder", "AutoregressiveDecoder", "AutoregressiveImage", "Decoder", "images"]
