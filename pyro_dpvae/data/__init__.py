"""Data sets by name, file or folder, and batches of them."""

from pyro_dpvae.data.batches import Batches, own_batches
from pyro_dpvae.data.dataset import DataSet, Split, as_arguments
from pyro_dpvae.data.loaders import batches_of
from pyro_dpvae.data.meaning import LAYOUTS, Meaning, meaning_of
from pyro_dpvae.data.preprocessing import PREPROCESSING, scale_caution, shades, to_unit
from pyro_dpvae.data.registry import DATA_SETS, READING, load

__all__ = [
    "DATA_SETS",
    "LAYOUTS",
    "PREPROCESSING",
    "READING",
    "Batches",
    "DataSet",
    "Meaning",
    "Split",
    "as_arguments",
    "batches_of",
    "load",
    "meaning_of",
    "own_batches",
    "scale_caution",
    "shades",
    "to_unit",
]
