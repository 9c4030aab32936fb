"""Data sets by name, file or folder, and batches of them."""

from pyro_dpvae.data.batches import Batches, own_batches
from pyro_dpvae.data.dataset import DataSet, Split
from pyro_dpvae.data.meaning import LAYOUTS, Meaning, meaning_of
from pyro_dpvae.data.preprocessing import PREPROCESSING, shades, to_unit
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
    "load",
    "meaning_of",
    "own_batches",
    "shades",
    "to_unit",
]
